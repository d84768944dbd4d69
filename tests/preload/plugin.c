/* SPDX-License-Identifier: MIT */
/* A library that the victim opens. */
#include <stdlib.h>
#include <string.h>

/* Frees what others got, and the other way round. */
char *plugin_swap(char *text);

char *plugin_swap(char *text)
{
    char *copy = strdup(text);

    free(text);
    return copy;
}
