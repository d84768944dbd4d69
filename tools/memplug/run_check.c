/* SPDX-License-Identifier: MIT */
/* What must be known of a program before another malloc is put into it. */
#include "run.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define NOT_FOUND 127
#define NOT_EXECUTABLE 126
#define NOT_POSSIBLE 125
#define INTERPRETERS_MAX 4u /* a script whose interpreter is a script ... */

static int refuse(const char *path, const char *why)
{
    fprintf(stderr, "memplug run: %s: %s\n", path, why);
    return NOT_POSSIBLE;
}

/* --- find ------------------------------------------------------------------------------------- */

static bool is_program(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

static int not_found(const char *program)
{
    int error = errno;

    fprintf(stderr, "memplug run: %s: %s\n", program,
            error == EACCES ? "permission denied" : "no such program");
    return error == EACCES ? NOT_EXECUTABLE : NOT_FOUND;
}

/* As execvp: along PATH, unless there is a slash in it. */
int run_find(const char *program, char *path)
{
    const char *folders = getenv("PATH");

    if (strchr(program, '/')) {
        snprintf(path, PATH_MAX, "%s", program);
        errno = access(program, F_OK) == 0 ? EACCES : ENOENT;
        return is_program(path) ? 0 : not_found(program);
    }
    folders = folders ? folders : "/usr/bin:/bin";
    while (*folders) {
        size_t length = strcspn(folders, ":");

        snprintf(path, PATH_MAX, "%.*s/%s", length > 0 ? (int)length : 1,
                 length > 0 ? folders : ".", program);
        if (is_program(path))
            return 0;
        folders += length + (folders[length] == ':');
    }
    errno = ENOENT;
    return not_found(program);
}

/* --- look ------------------------------------------------------------------------------------- */

/* The kernel drops LD_PRELOAD of a program that gets other rights. */
static int check_rights(const char *path)
{
    struct stat status;

    if (stat(path, &status) != 0)
        return refuse(path, strerror(errno));
    if ((status.st_mode & S_ISUID) != 0 && status.st_uid != getuid())
        return refuse(path, "it is setuid: its malloc cannot be replaced");
    if ((status.st_mode & S_ISGID) != 0 && status.st_gid != getgid())
        return refuse(path, "it is setgid: its malloc cannot be replaced");
    if (getuid() != 0 && getxattr(path, "security.capability", NULL, 0) > 0)
        return refuse(path, "it has file capabilities: its malloc cannot be replaced");
    return 0;
}

static bool read_at(int fd, void *bytes, size_t size_bytes, uint64_t offset)
{
    return pread(fd, bytes, size_bytes, (off_t)offset) == (ssize_t)size_bytes;
}

/* The dynamic linker that this tool was started by is the one whose libraries we have. */
static int own_linker(char *linker)
{
    static const char self[] = "/proc/self/exe";
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    int fd = open(self, O_RDONLY | O_CLOEXEC);
    int result = -1;

    for (unsigned i = 0; fd >= 0 && read_at(fd, &header, sizeof(header), 0) && i < header.e_phnum;
         i++)
        if (read_at(fd, &segment, sizeof(segment), header.e_phoff + i * sizeof(segment)) &&
            segment.p_type == PT_INTERP && segment.p_filesz <= PATH_MAX &&
            read_at(fd, linker, segment.p_filesz, segment.p_offset))
            result = 0;
    if (fd >= 0)
        close(fd);
    return result;
}

static int check_linker(const char *path, int fd, const Elf64_Phdr *segment)
{
    char linker[PATH_MAX] = "", ours[PATH_MAX] = "";

    if (segment->p_filesz > sizeof(linker) - 1 ||
        !read_at(fd, linker, segment->p_filesz, segment->p_offset))
        return refuse(path, "it is damaged");
    if (own_linker(ours) == 0 && strcmp(linker, ours) != 0)
        return refuse(path, "it is of another C library: its malloc cannot be replaced");
    return 0;
}

/* Its linker leaves a note of this owner. Notes begin at multiples of four. */
static bool is_go(int fd, const Elf64_Phdr *segment)
{
    static const char owner[] = "Go\0";
    Elf64_Nhdr note;
    char name[sizeof(owner)];

    for (uint64_t at = 0; at + sizeof(note) <= segment->p_filesz;) {
        if (!read_at(fd, &note, sizeof(note), segment->p_offset + at))
            return false;
        if (note.n_namesz == sizeof(owner) &&
            read_at(fd, name, sizeof(name), segment->p_offset + at + sizeof(note)) &&
            memcmp(name, owner, sizeof(owner)) == 0)
            return true;
        at += sizeof(note) + (((uint64_t)note.n_namesz + 3) & ~3ull) +
              (((uint64_t)note.n_descsz + 3) & ~3ull);
    }
    return false;
}

/* It runs, but there is hardly anything of it in the pool. */
static void say_if_go(const char *path, int fd, const Elf64_Ehdr *header)
{
    Elf64_Phdr segment;

    for (unsigned i = 0; i < header->e_phnum; i++) {
        if (!read_at(fd, &segment, sizeof(segment), header->e_phoff + i * sizeof(segment)) ||
            segment.p_type != PT_NOTE || !is_go(fd, &segment))
            continue;
        fprintf(stderr, "memplug run: %s: it is a Go program, whose heap Go's runtime maps by"
                        " itself: that is not in the pool, and cannot be moved\n", path);
        return;
    }
}

static int check_elf(const char *path, int fd)
{
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    int result;

    if (!read_at(fd, &header, sizeof(header), 0) || header.e_ident[EI_CLASS] != ELFCLASS64 ||
        header.e_phentsize != sizeof(segment))
        return refuse(path, "it is no 64-bit program");
    for (unsigned i = 0; i < header.e_phnum; i++) {
        if (!read_at(fd, &segment, sizeof(segment), header.e_phoff + i * sizeof(segment)))
            return refuse(path, "it is damaged");
        if (segment.p_type != PT_INTERP)
            continue;
        result = check_linker(path, fd, &segment);
        if (result == 0)
            say_if_go(path, fd, &header);
        return result;
    }
    return refuse(path, "it is linked statically: its malloc cannot be replaced");
}

/* "#!/usr/bin/python3 -u": path becomes its interpreter. */
static bool find_interpreter(char *line, char *path)
{
    char *end = memchr(line, '\n', PATH_MAX - 1);
    char *name = line + 2;

    if (end)
        *end = 0;
    name += strspn(name, " \t");
    name[strcspn(name, " \t")] = 0;
    snprintf(path, PATH_MAX, "%s", name);
    return *name != 0;
}

int run_check(const char *program)
{
    char path[PATH_MAX], head[PATH_MAX];

    snprintf(path, sizeof(path), "%s", program);
    for (unsigned i = 0; i < INTERPRETERS_MAX; i++) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        int result = check_rights(path);

        memset(head, 0, sizeof(head));
        if (fd < 0 || pread(fd, head, sizeof(head) - 1, 0) < 0) {
            /* May be executed and not read: then it cannot be looked at. */
            fprintf(stderr, "memplug run: %s: cannot be read: %s; going on\n", path,
                    strerror(errno));
            return result;
        }
        if (result == 0 && memcmp(head, ELFMAG, SELFMAG) == 0)
            result = check_elf(path, fd);
        else if (result == 0 && memcmp(head, "#!", 2) != 0)
            result = refuse(path, "it is neither a program nor a script");
        close(fd);
        if (result != 0 || head[0] != '#')
            return result;
        if (!find_interpreter(head, path))
            return refuse(path, "its first line names no interpreter");
    }
    return refuse(program, "its interpreters are scripts too");
}
