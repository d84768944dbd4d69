/* SPDX-License-Identifier: MIT */
#include "scenario.h"

#include "buffer.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANY_NUMBER_OF_WORDS 100000u
#define MAX_LINE 65536u

/* --- words ------------------------------------------------------------------------------------ */

bool parse_number(const char *text, uint64_t max, uint64_t *number)
{
    uint64_t value = 0;

    if (!*text)
        return false;
    for (; *text; text++) {
        uint64_t digit = (uint64_t)(*text - '0');

        if (*text < '0' || *text > '9' || value > (max - digit) / 10 || digit > max)
            return false;
        value = 10 * value + digit;
    }
    *number = value;
    return true;
}

bool parse_size(const char *text, uint64_t *bytes)
{
    static const char units[] = "KMGT";
    size_t length = strlen(text);
    const char *unit = length ? strchr(units, toupper((unsigned char)text[length - 1])) : NULL;
    char digits[24];
    unsigned shift = 0;

    if (unit) {
        shift = 10 * (unsigned)(unit - units + 1);
        length--;
    }
    if (!length || length >= sizeof(digits))
        return false;
    memcpy(digits, text, length);
    digits[length] = '\0';
    if (!parse_number(digits, UINT64_MAX >> 10 >> shift, bytes))
        return false;
    *bytes <<= shift;
    return true;
}

bool parse_block(const char *text, bool *in_window, uint64_t *number)
{
    *in_window = *text == '@';
    return parse_number(text + *in_window, 1u << 20, number);
}

const char *step_option(const struct step *step, const char *name)
{
    size_t length = strlen(name);

    for (unsigned i = 1; i < step->nr_words; i++)
        if (strncmp(step->words[i], name, length) == 0)
            return step->words[i] + length;
    return NULL;
}

const char *step_rest(const struct step *step, unsigned nr_words)
{
    const char *at = step->text;

    while (*at == ' ' || *at == '\t')
        at++;
    for (; nr_words; nr_words--) {
        while (*at && *at != ' ' && *at != '\t')
            at++;
        while (*at == ' ' || *at == '\t')
            at++;
    }
    return at;
}

/* --- what may stand in a line ----------------------------------------------------------------- */

/* Each returns null, or what is wrong. */

static const char *check_option_names(const struct step *step, unsigned first,
                                      const char *const *names)
{
    for (unsigned i = first; i < step->nr_words; i++) {
        const char *const *name = names;

        while (*name && strncmp(step->words[i], *name, strlen(*name)) != 0)
            name++;
        if (!*name)
            return "there is no such option";
        for (unsigned k = first; k < i; k++)
            if (strncmp(step->words[k], *name, strlen(*name)) == 0)
                return "an option stands there twice";
    }
    return NULL;
}

static bool good_number(const struct step *step, const char *name, uint64_t min, uint64_t max)
{
    const char *text = step_option(step, name);
    uint64_t number;

    return !text || (parse_number(text, max, &number) && number >= min);
}

static const char *check_boot(const struct step *step)
{
    static const char *const names[] = {"memmap_on_memory=", "mem=", "slots=", "maxmem=", "nodes=",
                                        "smp=", "append=", "memhp=", NULL};
    const char *wrong = check_option_names(step, 1, names);
    struct boot_options options;
    const char *size;
    uint64_t bytes;

    if (wrong)
        return wrong;
    if (!good_number(step, "slots=", 0, 256))
        return "slots are 0 to 256";
    if (!good_number(step, "nodes=", 1, 64))
        return "nodes are 1 to 64";
    if (!good_number(step, "smp=", 1, 64))
        return "processors are 1 to 64";
    size = step_option(step, "mem=");
    if (size && (!parse_size(size, &bytes) || bytes < (uint64_t)64 << 20 ||
                 bytes > REPLAY_MAX_MEM || bytes % (1 << 20)))
        return "memory is 64M to 256G, in whole MiB";
    size = step_option(step, "maxmem=");
    if (size && (!parse_size(size, &bytes) || bytes > REPLAY_MAX_MEM || bytes % (1 << 20)))
        return "maxmem is at most 256G, in whole MiB";
    scenario_boot_options(step, &options);
    return options.maxmem_bytes < options.mem_bytes ? "maxmem is less than mem" : NULL;
}

static const char *check_place(const struct step *step)
{
    const char *at = step_option(step, "at=");
    bool in_window;
    uint64_t number;

    if (at && (!parse_block(at, &in_window, &number) || !in_window))
        return "at= wants a block of the window: @0, @1, ...";
    return good_number(step, "node=", 0, 63) ? NULL : "a node is 0 to 63";
}

static const char *check_add(const struct step *step)
{
    static const char *const names[] = {"at=", "node=", NULL};
    const char *wrong = check_option_names(step, 3, names);
    uint64_t bytes;

    if (!wrong && (!parse_size(step->words[2], &bytes) || !bytes || bytes % 4096))
        wrong = "a size is whole pages: 128M, 1G";
    return wrong ? wrong : check_place(step);
}

static const char *check_del(const struct step *step)
{
    static const char *const names[] = {"wait=", NULL};
    const char *wrong = check_option_names(step, 2, names);

    if (!wrong && !good_number(step, "wait=", 0, 86400))
        wrong = "wait= is seconds";
    return wrong;
}

static const char *check_vadd(const struct step *step)
{
    static const char *const names[] = {"node=", "block=", NULL};
    const char *wrong = check_option_names(step, 4, names);
    const char *block = step_option(step, "block=");
    uint64_t bytes;

    if (!wrong && (!parse_size(step->words[2], &bytes) || !parse_size(step->words[3], &bytes) ||
                   (block && !parse_size(block, &bytes))))
        wrong = "a size is a number of bytes: 128M, 1G";
    return wrong ? wrong : check_place(step);
}

static const char *check_vreq(const struct step *step)
{
    uint64_t bytes;

    return parse_size(step->words[2], &bytes) ? NULL
                                              : "a size is a number of bytes: 128M, 1G";
}

static const char *check_blocks(const struct step *step)
{
    bool in_window;
    uint64_t number;

    for (unsigned i = 1; i < step->nr_words; i++)
        if (!parse_block(step->words[i], &in_window, &number))
            return "a block is @N, or N for one of the machine's own";
    return NULL;
}

static const char *check_state(const struct step *step)
{
    bool in_window;
    uint64_t number;

    return parse_block(step->words[1], &in_window, &number)
               ? NULL
               : "a block is @N, or N for one of the machine's own";
}

static const char *check_wsig(const struct step *step)
{
    uint64_t number;

    if (!parse_number(step->words[1], 86400, &number))
        return "wsig wants seconds first";
    return parse_number(step->words[2], 64, &number) && number ? NULL
                                                               : "a signal is 1 to 64";
}

static const char *check_kpf(const struct step *step)
{
    const char *wrong = check_state(step);
    uint64_t number;

    if (!wrong && step->nr_words == 3)
        wrong = "kpf wants an offset and a count, or neither";
    for (unsigned i = 2; i < step->nr_words && !wrong; i++)
        if (!parse_number(step->words[i], UINT32_MAX, &number))
            wrong = "kpf wants an offset and a count in pages";
    return wrong;
}

static const char *check_hog(const struct step *step)
{
    uint64_t number;

    return parse_number(step->words[3], 1 << 20, &number) ? NULL : "hog wants whole MiB";
}

static const char *check_trace(const struct step *step)
{
    static const char *const words[] = {"on", "off", "dump"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(step->words[1], words[i]) == 0)
            return NULL;
    return "trace is on, off or dump";
}

static const char *check_sleep(const struct step *step)
{
    char *end;
    double seconds = strtod(step->words[1], &end);

    return *end || !(seconds >= 0 && seconds <= 86400) ? "sleep wants seconds" : NULL;
}

static const struct op_rule {
    const char *name;
    enum op op;
    unsigned min_words, max_words;
    const char *(*check)(const struct step *step);
    const char *usage;
} rules[] = {
    {"boot", OP_BOOT, 1, 9, check_boot, "boot [OPTION=VALUE ...]"},
    {"add", OP_ADD, 3, 5, check_add, "add NAME SIZE [at=@N] [node=K]"},
    {"del", OP_DEL, 2, 3, check_del, "del NAME [wait=S]"},
    {"vadd", OP_VADD, 4, 6, check_vadd, "vadd NAME MAX REQ [node=K] [block=2M]"},
    {"vreq", OP_VREQ, 3, 3, check_vreq, "vreq NAME REQ"},
    {"online", OP_ONLINE, 2, ANY_NUMBER_OF_WORDS, check_blocks, "online @N [...]"},
    {"online_kernel", OP_ONLINE, 2, ANY_NUMBER_OF_WORDS, check_blocks, "online_kernel @N [...]"},
    {"online_movable", OP_ONLINE, 2, ANY_NUMBER_OF_WORDS, check_blocks,
     "online_movable @N [...]"},
    {"offline", OP_ONLINE, 2, ANY_NUMBER_OF_WORDS, check_blocks, "offline @N [...]"},
    {"state", OP_STATE, 2, ANY_NUMBER_OF_WORDS, check_state, "state @N WORD"},
    {"write", OP_WRITE, 2, ANY_NUMBER_OF_WORDS, NULL, "write PATH VALUE"},
    {"read", OP_READ, 2, 2, NULL, "read PATH"},
    {"wsig", OP_WSIG, 4, ANY_NUMBER_OF_WORDS, check_wsig, "wsig SECS SIG PATH VALUE"},
    {"kpf", OP_KPF, 2, 4, check_kpf, "kpf @N [OFF COUNT]"},
    {"hog", OP_HOG, 4, 4, check_hog, "hog NAME KIND MIB"},
    {"where", OP_WHERE, 2, 2, NULL, "where NAME"},
    {"unhog", OP_UNHOG, 2, 2, NULL, "unhog NAME"},
    {"sh", OP_SH, 2, ANY_NUMBER_OF_WORDS, NULL, "sh COMMAND"},
    {"lsmem", OP_LSMEM, 1, ANY_NUMBER_OF_WORDS, NULL, "lsmem"},
    {"trace", OP_TRACE, 2, ANY_NUMBER_OF_WORDS, check_trace, "trace on|off|dump"},
    {"sleep", OP_SLEEP, 2, 2, check_sleep, "sleep SECONDS"},
    {"settle", OP_SETTLE, 1, ANY_NUMBER_OF_WORDS, NULL, "settle"},
    {"note", OP_NOTE, 1, ANY_NUMBER_OF_WORDS, NULL, "note TEXT"},
};
#define NR_RULES (sizeof(rules) / sizeof(rules[0]))

/* --- a file ----------------------------------------------------------------------------------- */

struct parser {
    const char *name;
    unsigned line;
    char *error;
    size_t size_bytes;
};

__attribute__((format(printf, 2, 3))) static int wrong(const struct parser *parser,
                                                       const char *format, ...)
{
    va_list arguments;
    int length = snprintf(parser->error, parser->size_bytes, "%s:%u: ", parser->name,
                          parser->line);

    va_start(arguments, format);
    if (length >= 0 && (size_t)length < parser->size_bytes)
        vsnprintf(parser->error + length, parser->size_bytes - (size_t)length, format, arguments);
    va_end(arguments);
    return -1;
}

static void step_free(struct step *step)
{
    for (unsigned i = 0; i < step->nr_words; i++)
        free(step->words[i]);
    free(step->words);
    free(step->text);
}

static void split(struct step *step)
{
    const char *at = step->text;

    for (;;) {
        const char *start;

        while (*at == ' ' || *at == '\t')
            at++;
        if (!*at)
            return;
        start = at;
        while (*at && *at != ' ' && *at != '\t')
            at++;
        step->words = must_grow(step->words, step->nr_words + 1, sizeof(*step->words));
        step->words[step->nr_words++] = must_copy(start, (size_t)(at - start));
    }
}

/* A comment at the end of a line; what a shell or a person says may hold the sign itself. */
static size_t without_comment(const char *line, size_t length)
{
    static const char *const whole[] = {"sh ", "note ", "write ", "wsig ", "state "};

    for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++)
        if (strncmp(line, whole[i], strlen(whole[i])) == 0)
            return length;
    for (size_t i = 1; i < length; i++)
        if (line[i] == '#' && (line[i - 1] == ' ' || line[i - 1] == '\t'))
            return i;
    return length;
}

static int parse_step(const struct parser *parser, struct step *step)
{
    const struct op_rule *rule = rules;
    const char *what;

    split(step);
    while (rule < rules + NR_RULES && strcmp(rule->name, step->words[0]) != 0)
        rule++;
    if (rule == rules + NR_RULES)
        return wrong(parser, "there is no op '%s'", step->words[0]);
    if (step->nr_words < rule->min_words || step->nr_words > rule->max_words)
        return wrong(parser, "too %s words: %s",
                     step->nr_words < rule->min_words ? "few" : "many", rule->usage);
    step->op = rule->op;
    what = rule->check ? rule->check(step) : NULL;
    return what ? wrong(parser, "%s (%s)", what, rule->usage) : 0;
}

static int parse_line(const struct parser *parser, const char *line, size_t length,
                      struct scenario *scenario)
{
    struct step step = {.line = parser->line};

    while (length && (line[length - 1] == '\r' || line[length - 1] == ' ' ||
                      line[length - 1] == '\t'))
        length--;
    while (length && (*line == ' ' || *line == '\t')) {
        line++;
        length--;
    }
    if (!length || *line == '#')
        return 0;
    if (memchr(line, '\0', length) || length > MAX_LINE)
        return wrong(parser, "this is not a line of text");
    length = without_comment(line, length);
    while (line[length - 1] == ' ' || line[length - 1] == '\t')
        length--;
    step.text = must_copy(line, length);
    if (parse_step(parser, &step)) {
        step_free(&step);
        return -1;
    }
    scenario->steps = must_grow(scenario->steps, scenario->nr_steps + 1, sizeof(step));
    scenario->steps[scenario->nr_steps++] = step;
    if ((step.op == OP_BOOT) != (scenario->nr_steps == 1))
        return wrong(parser, "a scenario begins with 'boot' and boots once");
    return 0;
}

int scenario_parse(const char *name, const char *text, size_t length, struct scenario *scenario,
                   char *error, size_t size_bytes)
{
    struct parser parser = {.name = name, .error = error, .size_bytes = size_bytes};
    const char *end = text + length;

    *scenario = (struct scenario){0};
    while (text < end) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));

        stop = stop ? stop : end;
        parser.line++;
        if (parse_line(&parser, text, (size_t)(stop - text), scenario)) {
            scenario_free(scenario);
            return -1;
        }
        text = stop + 1;
    }
    return scenario->nr_steps ? 0 : wrong(&parser, "there is no step in it");
}

int scenario_read(const char *path, struct scenario *scenario, char *error, size_t size_bytes)
{
    FILE *file = fopen(path, "r");
    struct buffer text = {0};
    char part[4096];
    int result = -1;

    if (!file) {
        snprintf(error, size_bytes, "%s: %s", path, strerror(errno));
        return -1;
    }
    for (size_t length; (length = fread(part, 1, sizeof(part), file)) > 0;)
        buffer_add(&text, part, length);
    if (ferror(file))
        snprintf(error, size_bytes, "%s: it cannot be read", path);
    else
        result = scenario_parse(path, buffer_of(&text), text.length, scenario, error, size_bytes);
    fclose(file);
    buffer_free(&text);
    return result;
}

void scenario_free(struct scenario *scenario)
{
    for (size_t i = 0; i < scenario->nr_steps; i++)
        step_free(&scenario->steps[i]);
    free(scenario->steps);
    *scenario = (struct scenario){0};
}

static uint64_t size_option(const struct step *step, const char *name, const char *otherwise)
{
    const char *text = step_option(step, name);
    uint64_t bytes = 0;

    return parse_size(text ? text : otherwise, &bytes) ? bytes : 0;
}

static unsigned number_option(const struct step *step, const char *name, unsigned otherwise)
{
    const char *text = step_option(step, name);
    uint64_t number;

    return text && parse_number(text, UINT32_MAX, &number) ? (unsigned)number : otherwise;
}

void scenario_boot_options(const struct step *step, struct boot_options *options)
{
    options->mem = step_option(step, "mem=");
    options->mem = options->mem ? options->mem : "1G";
    options->mem_bytes = size_option(step, "mem=", "1G");
    options->maxmem_bytes = size_option(step, "maxmem=", "32G");
    if (!step_option(step, "maxmem=") && options->maxmem_bytes < options->mem_bytes)
        options->maxmem_bytes = options->mem_bytes;
    options->nr_slots = number_option(step, "slots=", 16);
    options->nr_nodes = number_option(step, "nodes=", 1);
    options->nr_cpus = number_option(step, "smp=", 1);
    options->memmap_on_memory = step_option(step, "memmap_on_memory=");
    options->memhp = step_option(step, "memhp=");
    options->append = step_option(step, "append=");
}
