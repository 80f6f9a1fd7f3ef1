# Functions that the library must not call. Given C files of src/, prints each call of one:
#
#   awk -f tools/banned.awk src/*/*.c src/*/*.h
#
# Below the programs (src/app) nothing ends the process, prints or reads the environment; nowhere
# are there functions that cannot be told a size. Memory comes from src/base/arena.c and mem*.c.
# Comments and strings are not code and are blanked first.
BEGIN {
    n_nowhere = split("sprintf vsprintf strcpy strcat gets atoi atol atof strtok setjmp longjmp " \
                      "alloca", nowhere, " ")
    n_below = split("getenv exit _exit _Exit quick_exit abort printf fprintf vprintf vfprintf " \
                    "puts putchar fputs perror signal sigaction system", below, " ")
    n_memory = split("malloc calloc realloc free strdup strndup reallocarray aligned_alloc " \
                     "posix_memalign asprintf vasprintf getline", memory, " ")
}

FNR == 1 {
    n = split(FILENAME, path, "/")
    layer = path[n - 1]
    in_comment = 0
}

# The line without what stands in comments, strings and character constants.
function code_of(line,    out, two, c, quote) {
    out = ""
    while (line != "") {
        two = substr(line, 1, 2)
        c = substr(line, 1, 1)
        if (in_comment) {
            if (two == "*/") {
                in_comment = 0
                line = substr(line, 3)
            } else {
                line = substr(line, 2)
            }
        } else if (two == "/*") {
            in_comment = 1
            line = substr(line, 3)
        } else if (two == "//") {
            break
        } else if (c == "\"" || c == "'") {
            quote = c
            line = substr(line, 2)
            while (line != "" && substr(line, 1, 1) != quote)
                line = substr(line, substr(line, 1, 1) == "\\" ? 3 : 2)
            line = substr(line, 2)
            out = out " "
        } else {
            out = out c
            line = substr(line, 2)
        }
    }
    return out
}

function look(list, n_list, why,    i) {
    for (i = 1; i <= n_list; i++) {
        if (code ~ ("(^|[^A-Za-z0-9_.>])" list[i] "[ \t]*\\(")) {
            printf "%s:%d: %s: %s\n", FILENAME, FNR, list[i], why
            bad = 1
        }
    }
}

{
    code = code_of($0)
    if (code ~ /^[ \t]*$/) next
    look(nowhere, n_nowhere, "is banned")
    if (layer == "app" || layer == "web") next # programs, both
    look(below, n_below, "is for src/app alone")
    if (code ~ /(^|[^A-Za-z0-9_])(stderr|stdout|environ)([^A-Za-z0-9_]|$)/) {
        printf "%s:%d: stderr, stdout and environ are for src/app alone\n", FILENAME, FNR
        bad = 1
    }
    if (layer == "base" && path[n] ~ /^(arena|mem.*)\.c$/) next
    look(memory, n_memory, "take memory from an arena or mem_new")
}

END { exit bad }
