/* main: the table of commands, and what is common to all of them. */
#include "app/app.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static const option help_options[] = {
    { "--man", NULL, "the man page, in roff", OPT_FLAG, FIELD(man) },
    { .name = NULL },
};

static int cmd_help(const options *o);
static int cmd_version(const options *o);

const command commands[] = {
    { "run", NULL, "continue a prompt, or answer a message", cmd_run,
      { run_options, answer_options, chat_options } },
    { "chat", NULL, "a conversation in the terminal", cmd_chat,
      { converse_options, answer_options, chat_options } },
    { "template", NULL, "messages to the prompt that the chat template makes of them",
      cmd_template, { template_options, chat_options } },
    { "tokenize", NULL, "text to token ids", cmd_tokenize, { tokenize_options } },
    { "detokenize", "[ID ...]", "token ids to text", cmd_detokenize, { detokenize_options } },
    { "logits", NULL, "logits after given tokens", cmd_logits, { logits_options } },
    { "perplexity", NULL, "how well a model foretells a text", cmd_perplexity,
      { perplexity_options } },
    { "inspect", "[MODEL]", "a model's metadata and memory need", cmd_inspect,
      { inspect_options } },
    { "convert", "IN OUT", "write a model in another container or format", cmd_convert,
      { convert_options } },
    { "verify", "[MODEL]", "check a model's hashes, bounds and shapes", cmd_verify,
      { verify_options_table } },
    { "pull", "SOURCE [NAME]", "fetch a model into the model folder", cmd_pull, { pull_options } },
    { "ls", NULL, "list the models that -m finds by name", cmd_ls, { NULL } },
    { "rm", "NAME", "remove a model from the model folder", cmd_rm, { NULL } },
    { "bench", "[compare A B | plot RESULT ...]", "measure speed", cmd_bench, { bench_options } },
    { "devices", NULL, "list the GPUs", cmd_devices, { NULL } },
    { "tune", "[PRODUCT]", "measure which kernel shapes are fastest here, and keep them",
      cmd_tune, { NULL } },
    { "check", "[KERNEL]", "test every kernel on this GPU", cmd_check, { NULL } },
    { "help", "[COMMAND]", "this, or a command's options", cmd_help, { help_options } },
    { "version", NULL, "print the version", cmd_version, { NULL } },
    { .name = NULL },
};

const option common_options[] = {
    { "-m", "MODEL", "GGUF file, pack, safetensors folder or a model's name; without it tale-8m",
      OPT_TEXT, FIELD(model) },
    { "-c", "N", "tokens that the context holds; without it what is needed", OPT_COUNT,
      FIELD(context), .min = 1, .max = UINT32_MAX },
    { "--batch", "N", "most prompt tokens in one pass", OPT_COUNT, FIELD(batch), .initial = "512",
      .min = 1, .max = 8192 },
    { "--device", "N|NAME", "GPU by number in `devices` or a part of its name", OPT_TEXT,
      FIELD(device), .min = 1, .max = 255 },
    { "--webgpu", "PATH", "another WebGPU library", OPT_TEXT, FIELD(webgpu), .min = 1,
      .max = 4095 },
    { "--no-f16", NULL, "do without half floats", OPT_FLAG, FIELD(no_f16) },
    { "--no-subgroups", NULL, "do without subgroup operations", OPT_FLAG, FIELD(no_subgroups) },
    { "--no-int8", NULL, "keep activations as floats", OPT_FLAG, FIELD(no_int8) },
    { "--checks", NULL, "keep WebGPU's own checks, which slow kernels down: to look for a fault",
      OPT_FLAG, FIELD(checks) },
    { "--max-memory", "BYTES", "most memory on the GPU; K, M and G may follow", OPT_BYTES,
      FIELD(max_memory), .min = 1, .max = 0x1p64 },
    { "--max-binding", "BYTES", "most bytes in one buffer binding", OPT_BYTES, FIELD(max_binding),
      .min = DP_BINDING_LEAST, .max = 0x1p64 },
    { "--no-verify", NULL, "load a pack without checking its hashes", OPT_FLAG, FIELD(no_verify) },
    { "--no-tune", NULL, "kernels as they are without what `tune` has found; measure nothing",
      OPT_FLAG, FIELD(no_tune) },
    { "--profile", NULL, "of run and bench, where the device's time goes, on standard error",
      OPT_FLAG, FIELD(profile) },
    { "--profile-out", "FILE", "of run and bench, the same as JSON in a file", OPT_TEXT,
      FIELD(profile_out) },
    { "--trace", "FILE", "of run and bench, every dispatch in time, in Chrome's trace format",
      OPT_TEXT, FIELD(trace) },
    { "--json", NULL, "the result as JSON", OPT_FLAG, FIELD(json) },
    { "--log", NULL, "what the library does, on standard error", OPT_FLAG, FIELD(log) },
    { "--help", NULL, "this command's options", OPT_FLAG, FIELD(help) },
    { "-h", NULL, "the same", OPT_FLAG, FIELD(help) },
    { .name = NULL },
};

/* What no other command writes would be missed only when it is looked for. */
static bool check_profile(const command *c, const options *o, dp_error *err) {
    const char *name = o->trace != NULL         ? "--trace"
                       : o->profile_out != NULL ? "--profile-out"
                       : o->profile             ? "--profile"
                                                : NULL;
    return name == NULL || c->run == cmd_run || c->run == cmd_bench ||
           err_set(err, DP_E_ARGUMENT, "%s: %s writes none, run and bench do", name, c->name);
}

static const command *find_command(const char *name) {
    for (const command *c = commands; c->name != NULL; c++) {
        if (strcmp(c->name, name) == 0) return c;
    }
    return NULL;
}

static int no_such_command(const char *name) {
    dp_error err = { 0 };
    buf names;
    buf_init(&names, 4096);
    for (const command *c = commands; c->name != NULL; c++) {
        buf_printf(&names, "%s%s", c == commands ? "" : ", ", c->name);
    }
    err_set(&err, DP_E_ARGUMENT, "no command \"%.100s\"; there are %s", name,
            names.data != NULL ? names.data : "");
    buf_free(&names);
    return fail(&err);
}

static int cmd_help(const options *o) {
    const command *c = o->n_rest > 0 ? find_command(o->rest[0]) : NULL;
    if (o->n_rest > 0 && c == NULL) return no_such_command(o->rest[0]);
    buf b;
    buf_init(&b, 1 << 20);
    if (o->json) {
        help_json(c, &b);
    } else if (o->man) {
        help_man(&b);
    } else if (c != NULL) {
        help_command(c, &b);
    } else {
        help_all(&b);
    }
    return out_result(&b);
}

static int cmd_version(const options *o) {
    buf b;
    buf_init(&b, 4096);
    if (o->json) {
        buf_printf(&b, "{");
        json_text(&b, "version", str_of(DP_VERSION));
        buf_printf(&b, "}\n");
    } else {
        buf_printf(&b, "doppler %s\n", DP_VERSION);
    }
    return out_result(&b);
}

/* A closed standard stream would lend its number to the next file opened. The stand-ins refuse what
 * the stream is for, so that writing to a closed stdout is still an error. */
static void hold_standard_streams(void) {
    static const int modes[] = { O_WRONLY, O_RDONLY, O_WRONLY };
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) < 0) (void)open("/dev/null", modes[fd]); /* the lowest free: fd */
    }
}

int main(int argc, char **argv) {
    hold_standard_streams();
    /* Without it libraries under Vulkan complain of it on stderr. */
    setenv("XDG_RUNTIME_DIR", "/nonexistent", 0);
    interrupt_install();
    if (argc < 2) {
        buf b;
        buf_init(&b, 1 << 20);
        help_all(&b);
        fprintf(stderr, "%s", b.data != NULL ? b.data : "");
        buf_free(&b);
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) name = "help";
    if (strcmp(name, "--version") == 0) name = "version";
    const command *c = find_command(name);
    if (c == NULL) return no_such_command(name);
    dp_error err = { 0 };
    options o = { 0 };
    if (!args_parse(c, argc - 2, argv + 2, &o, &err)) return fail(&err);
    int code;
    if (o.help) {
        buf b;
        buf_init(&b, 1 << 20);
        help_command(c, &b);
        code = out_result(&b);
    } else if (!check_profile(c, &o, &err)) {
        code = fail(&err);
    } else {
        code = c->run(&o);
    }
    /* Some file systems tell of a full disk only here. */
    if (fclose(stdout) != 0 && code == EXIT_OK) {
        err_set(&err, DP_E_FILE, "standard output: cannot be closed");
        code = fail(&err);
    }
    return code;
}
