/* input: messages from standard input, a line each, or several joined.
 *
 * A line that ends in a backslash goes on in the next; lines between """ and """ are one message. A
 * message that is too long is read to its end and refused, so that its rest is not taken for the
 * next one. Bytes are taken as they are. */
#include "app/app.h"

#include <errno.h>
#include <unistd.h>

void input_free(line_input *in) {
    buf_free(&in->bytes);
    *in = (line_input){ .at = 0 };
}

str trim_blanks(str s) {
    const char *blanks = " \t\r\n";
    while (s.size > 0 && s.data[0] != '\0' && strchr(blanks, s.data[0]) != NULL) {
        s.data++;
        s.size--;
    }
    while (s.size > 0 && s.data[s.size - 1] != '\0' && strchr(blanks, s.data[s.size - 1]) != NULL) {
        s.size--;
    }
    return s;
}

/* Adds what there is to the bytes that are not used yet. */
static bool read_more(line_input *in, dp_error *err) {
    char piece[65536];
    if (!wait_for_input(STDIN_FILENO, err)) return false;
    const ssize_t n = read(STDIN_FILENO, piece, sizeof(piece));
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return true;
    if (n < 0 && !(errno == EIO && isatty(STDIN_FILENO))) { /* EIO: the terminal has gone */
        return err_set(err, DP_E_FILE, "standard input: cannot be read: %s", strerror(errno));
    }
    if (in->bytes.ceiling == 0) buf_init(&in->bytes, MESSAGE_BYTES_MAX + 2 * sizeof(piece));
    in->ended = n <= 0;
    const size_t left = in->bytes.size - in->at;
    if (in->at > 0) memmove(in->bytes.data, in->bytes.data + in->at, left);
    in->bytes.size = left;
    in->at = 0;
    buf_add(&in->bytes, piece, n > 0 ? (size_t)n : 0);
    return buf_ok(&in->bytes, "standard input", err);
}

/* The next line without its end, a view until the next call; *at_end if there is none. Of a line
 * that is too long nothing is left but *too_long. */
static bool read_line(line_input *in, str *line, bool *too_long, bool *at_end, dp_error *err) {
    for (;;) {
        const size_t left = in->bytes.size - in->at;
        const char *from = left > 0 ? in->bytes.data + in->at : "";
        const char *end = memchr(from, '\n', left);
        if (end != NULL || in->ended) {
            *line = (str){ from, end != NULL ? (size_t)(end - from) : left };
            *at_end = end == NULL && left == 0 && !*too_long;
            in->at += line->size + (end != NULL);
            if (line->size > 0 && from[line->size - 1] == '\r') line->size--;
            if (*too_long) line->size = 0;
            return true;
        }
        if (left > MESSAGE_BYTES_MAX) {
            *too_long = true;
            in->at = in->bytes.size;
        }
        if (!read_more(in, err)) return false;
    }
}

static void show_prompt(bool show, const char *prompt) {
    if (show) fprintf(stderr, "%s", prompt);
}

/* Adds the lines of a block, whose first is `line`, up to the closing """ or the end. */
static bool read_block(line_input *in, bool show, str line, buf *text, bool *too_long,
                       dp_error *err) {
    bool at_end = false;
    for (size_t n = 0; !at_end; n++) {
        const bool closes = str_ends(line, "\"\"\"");
        if (closes) line.size -= 3;
        if (line.size > 0 || (n > 0 && !closes)) {
            if (text->size > 0 || n > 1) buf_printf(text, "\n");
            buf_add_str(text, line);
        }
        if (closes) return true;
        show_prompt(show, ". ");
        bool over = false; /* of this line: the end of the text is told from its remains by it */
        if (!read_line(in, &line, &over, &at_end, err)) return false;
        *too_long |= over;
    }
    return true;
}

bool input_message(line_input *in, bool show, buf *text, bool *is_command, bool *at_end,
                   dp_error *err) {
    bool too_long = false;
    str line;
    buf_reset(text);
    show_prompt(show, "> ");
    if (!read_line(in, &line, &too_long, at_end, err)) return false;
    *is_command = str_starts(line, "/");
    if (str_starts(line, "\"\"\"")) {
        const str rest = { line.data + 3, line.size - 3 };
        if (!read_block(in, show, rest, text, &too_long, err)) return false;
    } else {
        bool ended = false;
        while (str_ends(line, "\\") && !ended) {
            *is_command = false;
            buf_add(text, line.data, line.size - 1);
            buf_printf(text, "\n");
            show_prompt(show, ". ");
            bool over = false;
            if (!read_line(in, &line, &over, &ended, err)) return false;
            too_long |= over;
        }
        buf_add_str(text, line);
    }
    if (too_long) buf_add(text, NULL, text->ceiling + 1); /* sticks as over the ceiling */
    return buf_ok(text, "a message", err);
}
