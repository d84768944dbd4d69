/* SPDX-License-Identifier: MIT */
/*
 * What the files of the shell share. shell_lex.c and shell_parse.c make a tree of a line,
 * shell_check.c looks whether all of it is understood, shell_run.c walks it; shell_expand.c makes
 * arguments of words; the commands stand in tables at the ends of shell_builtins.c, shell_call.c,
 * shell_nested.c, shell_text.c, shell_line.c, shell_files.c, shell_find.c, shell_count.c and
 * shell_memory.c. All memory is a line's own and goes with it; what cannot go on leaves by
 * shell_leave().
 */
#ifndef SHELL_PRIVATE_H
#define SHELL_PRIVATE_H

#include "shell_tree.h"

#include <regex.h>
#include <setjmp.h>

#define SHELL_FDS 10
#define SHELL_FIRST_JOB 100 /* a job's pid is its number and this */
#define SHELL_ASSIGNS 32u /* before one command */
#define SHELL_CHUNK ((size_t)64 << 10) /* what is read or written at once */

/* --- memory and texts (shell_base.c) ---------------------------------------------------------- */

struct shell;

struct text {
    char *bytes; /* terminated once something was appended */
    size_t length, size;
};

struct list {
    char **items;
    size_t count, size;
};

void *shell_alloc(struct shell *shell, size_t size_bytes); /* zeroed */
char *shell_copy(struct shell *shell, const char *bytes, size_t length);
char *shell_format(struct shell *shell, const char *format, ...)
    __attribute__((nonnull(2), format(printf, 2, 3)));
void text_add(struct shell *shell, struct text *text, const char *bytes, size_t length);
void text_string(struct shell *shell, struct text *text, const char *string);
void list_add(struct shell *shell, struct list *list, char *item);
void list_sort(struct list *list);
/* Compiled once a line; a pattern that is none is not understood. */
const regex_t *regex_get(struct shell *shell, const char *pattern, int flags);

/* --- the shell -------------------------------------------------------------------------------- */

enum file_kind { FILE_TEXT, FILE_NULL, FILE_ZERO, FILE_FULL, FILE_HOST };

struct file {
    enum file_kind kind;
    bool readable, writable;
    unsigned nr_references;
    struct text *text; /* of FILE_TEXT; read from offset, appended to */
    int handle;
    int writer; /* of what was opened for both: another handle, and -1 else */
    uint64_t offset;
    struct file *next; /* all that were ever opened */
};

struct variable {
    const char *name, *value;
    bool exported;
};

/* The newest first; what a subshell adds is its own, so nothing is ever taken out of the middle. */
struct function {
    const char *name;
    const struct node *body;
    const struct function *next;
};

/* What a name was before it became local. */
struct local {
    const char *name, *value; /* null: unset */
    bool exported;
    const struct local *next;
};

/* What a subshell has of its own. */
struct environment {
    struct variable *variables;
    size_t nr_variables, nr_variables_max;
    char **arguments; /* $1 is arguments[0] */
    size_t nr_arguments;
    const char *name;          /* $0 */
    const char *function_name; /* of the innermost function that is running */
    const struct function *functions;
    const struct local *locals;
    const char *exit_trap;
    size_t option_at; /* getopts: where in its argument it is; 0: before the next one */
    bool exits_on_error, needs_set, pipe_fails; /* set -e, -u, -o pipefail */
    bool bash;                                  /* else ash */
    const char *directory;
    struct file *files[SHELL_FDS];
};

enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE, FLOW_RETURN, FLOW_EXIT };

/* Where what cannot go on goes on: the end of the innermost subshell. */
struct escape {
    jmp_buf buffer;
    struct escape *outer;
    uint64_t deadline_ns; /* of the machine's clock; 0: none */
};

struct shell {
    struct shell_host own_host; /* the caller's may be gone while a job is parked */
    const struct shell_host *host;
    struct chunk *chunks;
    size_t allocated_bytes;
    jmp_buf *leave;
    struct shell_result *result, parked_result; /* of a line that has ended */
    struct text output;
    struct environment own;
    struct file *files;
    struct regex *regexes;
    struct text out;     /* what the running command has printed and not flushed */
    const char *name;    /* of the running command, for its messages */
    int status;          /* $? */
    int write_error;     /* of what the running command has printed */
    int untold;          /* of its last complaint: there is nobody to tell */
    int substituted;     /* status of the last $(...) of the command being expanded */
    enum flow flow;
    unsigned flow_levels, loops, depth;
    unsigned tested; /* set -e does not count here: conditions, and what stands before && */
    struct escape *escape;
    const struct function *known; /* names of functions that check_line() has seen */
    const struct node *reader; /* what stands behind the running command's pipe */
    uint64_t random;
    char *scratch; /* SHELL_CHUNK bytes, for nobody longer than a read */
    unsigned nr_commands, nr_jobs;
    struct job *jobs, *job; /* all; the one that runs, or null */
    struct shell *next_parked;
    bool foreign;
    bool changes;        /* what check_line() found, for what comes out only while it runs */
};

_Noreturn void shell_leave(struct shell *shell, enum shell_verdict verdict);
/* Something that is not understood: the culprit's name. */
_Noreturn void shell_unknown(struct shell *shell, const char *culprit);
/* ash's own way out: "sh: text", and the exit status 2 of the innermost subshell, or the line. */
_Noreturn void shell_abort(struct shell *shell, const char *format, ...)
    __attribute__((nonnull(2), format(printf, 2, 3)));

/* --- words (shell_expand.c, shell_arithmetic.c, shell_glob.c) --------------------------------- */

void expand_words(struct shell *shell, const struct word *words, struct list *fields);
char *expand_string(struct shell *shell, const struct word *word);  /* one string, no globs */
char *expand_pattern(struct shell *shell, const struct word *word); /* quoted ones escaped */
int64_t arithmetic(struct shell *shell, const char *expression);
/* Adds the paths that a pattern stands for; false if none. */
bool glob_add(struct shell *shell, const char *pattern, struct list *fields);
/* Only 10, 0x and octal; skips a foreign mark. */
bool number_parse(const char *text, int64_t *number);

/* Null: unset. The second also knows what the shell itself sets. */
const char *variable_get(const struct shell *shell, const char *name);
const char *variable_value(struct shell *shell, const char *name);
void variable_set(struct shell *shell, const char *name, const char *value);
void variable_unset(struct shell *shell, const char *name);
/* $IFS. */
const char *shell_separators(const struct shell *shell);
bool variable_exported(const struct shell *shell, const char *name);
void variable_export(struct shell *shell, const char *name, bool exported);

/* --- running (shell_run.c, shell_io.c) -------------------------------------------------------- */

int run_node(struct shell *shell, const struct node *node);
/* In a subshell, its output collected. */
void run_capture(struct shell *shell, const struct node *node, struct text *text);
/* A body in an environment of its own. It takes over in and out if they are not null. Its end is
 * also that of exit, of what is aborted in it, and of the deadline if that is not 0. */
struct apart {
    struct file *in, *out;
    uint64_t deadline_ns;
    bool expired;
    int (*body)(struct shell *shell, void *context);
    void *context;
};
int run_apart(struct shell *shell, struct apart *apart);
/* A tool, or a script by its path. */
int run_program(struct shell *shell, int argc, char **argv);
/* Does who reads what the running command prints not care for its order? */
bool order_is_lost(const struct shell *shell);
/* Ends what is past its deadline. */
void deadline_check(struct shell *shell);
void deadline_set(struct shell *shell);
void shell_sleep(struct shell *shell, uint64_t ns);

/* --- background jobs (shell_jobs.c) ----------------------------------------------------------- */

/* Starts one and runs it until it sleeps; false: it can only be run where it stands. */
bool job_start(struct shell *shell, const struct node *node);
/* False: it is no job that wants to sleep. */
bool job_sleep(struct shell *shell, uint64_t ns);
/* Those that are due by then, each in its time. */
void jobs_run(struct shell *shell, uint64_t until_ns);
bool jobs_are_left(struct shell *shell);
void jobs_end(struct shell *shell);
int run_job(struct shell *shell, const struct node *node);
int run_wait(struct shell *shell, int argc, char **argv);
int run_kill(struct shell *shell, int argc, char **argv);
void shell_free(struct shell *shell);

/* --- calls (shell_call.c, shell_nested.c) ----------------------------------------------------- */

const struct function *function_find(const struct function *functions, const char *name);
int function_call(struct shell *shell, const struct function *function, int argc, char **argv);
/* Parsed, checked and run in this very shell. */
int run_text(struct shell *shell, const char *text);
/* argv: the shell, and its arguments. */
int run_shell(struct shell *shell, int argc, char **argv);
/* The word of a command that is itself a command; null: it has none. */
const struct word *nested_command(struct shell *shell, const struct word *words);
/* The text of sh -c, if it is known; *is_dynamic: there is one, and it is not. */
const char *nested_text(struct shell *shell, const struct word *words, bool *is_dynamic);

/* Absolute and plain. */
char *path_of(struct shell *shell, const char *name);
/* A new file, one reference; null and a negative errno in error. */
struct file *file_open(struct shell *shell, const char *name, enum shell_open how, int *error);
/* For reading and writing, what is no file in memory. */
struct file *file_open_both(struct shell *shell, const char *name, int *error);
struct file *file_text(struct shell *shell, struct text *text, bool readable);
void file_put(struct shell *shell, struct file *file);
void files_end(struct shell *shell); /* all that are still open */
int64_t file_read(struct shell *shell, struct file *file, void *to, size_t size_bytes);
int file_write(struct shell *shell, struct file *file, const char *bytes, size_t length);
void environment_enter(struct shell *shell, struct environment *saved);
void environment_leave(struct shell *shell, struct environment *saved);
/* Bytes into a command's input: its operand, or fd 0 for "-". */
struct file *input_open(struct shell *shell, const char *name, int *error);
int input_all(struct shell *shell, const char *name, struct text *text);
/* What is not listed makes the text a real machine's. */
int host_list(struct shell *shell, const char *name, void (*each)(void *to, const char *name),
              void *to);
int host_kind(struct shell *shell, const char *name); /* enum shell_kind, or a negative errno */

/* What a command prints: gathered and written at its end, or before it complains. */
void print(struct shell *shell, const char *format, ...)
    __attribute__((nonnull(2), format(printf, 2, 3)));
void print_bytes(struct shell *shell, const char *bytes, size_t length);
int print_flush(struct shell *shell); /* 0, or the first error of this command's writes */
/* "name: text" to fd 2. */
void complain(struct shell *shell, const char *format, ...)
    __attribute__((nonnull(2), format(printf, 2, 3)));

/* --- commands --------------------------------------------------------------------------------- */

enum tool_flags {
    TOOL_CHANGES = 1 << 0, /* memory's state, perhaps */
    TOOL_FOREIGN = 1 << 1, /* its text is a real kernel's */
    TOOL_BUILTIN = 1 << 2, /* of ash: messages begin with "sh" */
};

struct tool {
    const char *name;
    const char *options; /* letters, ':' behind those with a value; null: parses its own */
    unsigned flags;
    int (*run)(struct shell *shell, int argc, char **argv);
};

struct options {
    bool has[128];
    const char *value[128];
};

extern const struct tool shell_builtins[], shell_call_tools[], shell_nested_tools[],
    shell_text_tools[], shell_line_tools[], shell_file_tools[], shell_find_tools[],
    shell_count_tools[], shell_memory_tools[];

/* These stand in tables of other files. Is a script understood? */
int run_awk(struct shell *shell, int argc, char **argv);
int run_sed(struct shell *shell, int argc, char **argv);
int run_sort(struct shell *shell, int argc, char **argv);
int run_uniq(struct shell *shell, int argc, char **argv);
bool awk_understood(struct shell *shell, const char *script);
int run_test(struct shell *shell, int argc, char **argv);
bool sed_understood(struct shell *shell, const char *script);

const struct tool *tool_find(const char *name);
/* Parses tool's options; moves the operands to argv[0...] and returns their number. Leaves at an
 * option that is not understood. -N is option n with that value. */
int tool_options(struct shell *shell, int argc, char **argv, struct options *options);
/* Is this an argument that tool_options() would not understand? */
bool tool_refuses(const struct tool *tool, const char *argument);

/* A line of a text without its newline; false at the end. mark: it was marked as foreign. */
struct line {
    const char *bytes;
    size_t length;
    bool mark;
};
bool line_next(const struct text *text, size_t *at, struct line *line);
void print_line(struct shell *shell, const struct line *line);

#endif
