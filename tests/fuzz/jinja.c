/* fuzz jinja: chat templates and what they are given.
 *
 * The input is a template, a NUL, messages, a NUL, variables; what is missing has a default. What
 * renders must be UTF-8 with one mark of 0 or 1 for each byte, and the same a second time; what
 * does not says why in one line and leaves nothing behind. A template that holds no expression and
 * no tag cannot mark anything. */
#include "text/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) __builtin_trap();
}

static str next_part(str *rest) {
    const char *end = rest->size == 0 ? NULL : memchr(rest->data, '\0', rest->size);
    const str part = { rest->data, end == NULL ? rest->size : (size_t)(end - rest->data) };
    const size_t used = end == NULL ? rest->size : part.size + 1;
    *rest = (str){ rest->data + used, rest->size - used };
    return part;
}

static void check_prompt(str source, const buf *text, const buf *marks) {
    str left = { text->data, text->size };
    size_t n_marked = 0;
    require(marks->size == text->size);
    for (size_t i = 0; i < marks->size; i++) {
        require(marks->data[i] == 0 || marks->data[i] == 1);
        n_marked += (size_t)marks->data[i];
    }
    while (left.size > 0) {
        const size_t n = utf8_next(left, NULL);
        require(n > 0);
        left = (str){ left.data + n, left.size - n };
    }
    if (source.size == 0 || memchr(source.data, '{', source.size) == NULL) require(n_marked == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char messages[] =
        "[{\"role\":\"system\",\"content\":\"S \\u00e9 <|x|>\"},{\"role\":\"user\",\"content\":"
        "[{\"type\":\"text\",\"text\":\"T\"}]},{\"role\":\"assistant\",\"content\":null,"
        "\"tool_calls\":[{\"id\":\"1\",\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1.5}}}]}]";
    static const char variables[] =
        "{\"s\":\"Hello, World\",\"u\":\"Gr\u00f6\u00dfe \u65e5\",\"e\":\"\",\"ws\":\" \\ta b\\n\","
        "\"n\":7,\"neg\":-7,\"z\":0,\"x\":2.5,\"big\":9007199254740993,\"t\":true,\"f\":false,"
        "\"l\":[3,1,2],\"words\":[\"b\",\"A\",\"c\"],\"empty\":[],\"ed\":{},\"d\":{\"b\":1,\"a\":"
        "\"two\","
        "\"c\":[1.5,null]},\"nested\":[[1,2],{\"k\":[true]}],\"rows\":[{\"k\":\"x\",\"v\":1,\"o\":"
        "{\"p\":\"q\"}},{\"k\":\"Y\",\"v\":3,\"o\":{\"p\":\"r\"}}]}";
    str rest = { (const char *)data, size };
    const str source = next_part(&rest);
    chat_input in = { .messages = next_part(&rest),
                      .tools = STR("[{\"function\":{\"name\":\"f\",\"parameters\":{}}}]"),
                      .variables = next_part(&rest),
                      .add_generation_prompt = true,
                      .bos = STR("<s>"),
                      .eos = STR("</s>"),
                      .now = 1785000009 };
    if (in.messages.size == 0) in.messages = str_of(messages);
    if (in.variables.size == 0) in.variables = str_of(variables);
    buf text[2], marks[2];
    bool ok[2];
    for (size_t k = 0; k < 2; k++) {
        dp_error err = { 0 };
        buf_init(&text[k], (size_t)1 << 28);
        buf_init(&marks[k], (size_t)1 << 28);
        ok[k] = chat_render(source, "x", &in, &text[k], &marks[k], &err);
        require(ok[k] == (err.status == DP_OK));
        for (const char *at = err.message; *at != '\0'; at++)
            require((unsigned char)*at >= 32);
        require(ok[k] || (err.message[0] != '\0' && text[k].size == 0 && marks[k].size == 0));
        if (ok[k]) check_prompt(source, &text[k], &marks[k]);
    }
    require(ok[0] == ok[1] && text[0].size == text[1].size);
    require(text[0].size == 0 || memcmp(text[0].data, text[1].data, text[0].size) == 0);
    for (size_t k = 0; k < 2; k++) {
        buf_free(&text[k]);
        buf_free(&marks[k]);
    }
    return 0;
}
