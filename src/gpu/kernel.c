/* kernel: joins kernel texts with their fragments and makes pipelines.
 *
 * A kernel's bindings are those of its file and of its fragments; the bind group layout comes from
 * these tables and not from the shader, so that kernels with equal bindings share bind groups.
 *
 * Module and pipeline are made inside error scopes: a fault in a shader is a message of this
 * kernel. Where the implementation compiles in the background nothing waits until a plan is
 * finished. wgpu-native has only calls that block, but takes them from any thread: there kernels
 * wait in a queue for threads of ours (gpu_kernels_start) and for whoever needs them first. */
#include "gpu/gpu_internal.h"

#include <stdio.h>

enum { CONSTS_MAX = 32, TEXT_MAX = 1024 * 1024, KERNELS_MAX = 4096 };

/* ---- text ---------------------------------------------------------------------------------- */

/* `//! use weight as other`: the fragment fills a second place under another name. */
static bool is_second(const gpu_fragment *fragment, const char *slot) {
    return strcmp(slot, fragment->slot) != 0;
}

static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* The text with words SLOT_... as NAME_... and binding 0 as GPU_SECOND_BINDING. */
static void add_renamed(buf *out, const char *text, const char *slot, const char *name) {
    static const char binding[] = "@binding(0)";
    const size_t n = strlen(slot);
    bool in_word = false;
    for (const char *c = text; *c != '\0'; c++) {
        if (strncmp(c, binding, sizeof binding - 1) == 0) {
            buf_printf(out, "@binding(%d)", GPU_SECOND_BINDING);
            c += sizeof binding - 2;
        } else if (!in_word && strncmp(c, slot, n) == 0 && c[n] == '_') {
            buf_printf(out, "%s", name);
            c += n - 1;
        } else {
            buf_add_str(out, (str){ c, 1 });
        }
        in_word = is_word(*c);
    }
}

static void add_fragment(buf *out, const gpu_fragment *f, const char *slot) {
    const char *text;
    for (size_t i = 0; (text = gpu_text(f->text, f->common, i)) != NULL; i++) {
        if (is_second(f, slot)) {
            add_renamed(out, text, f->slot, slot);
        } else {
            buf_add_str(out, str_of(text));
        }
    }
}

void gpu_kernel_text(const gpu *g, const gpu_source *source, const gpu_fragment *const *fragments,
                     buf *out) {
    bool f16 = source->needs_f16, subgroups = source->needs_subgroups;
    bool matrix = source->needs_matrix;
    for (uint32_t i = 0; i < source->n_slots; i++) {
        f16 |= fragments[i]->needs_f16;
        subgroups |= fragments[i]->needs_subgroups;
        matrix |= fragments[i]->needs_matrix;
    }
    /* On the kernel's first line, so that line numbers in messages are those of its file. */
    if (f16) buf_printf(out, "enable f16; ");
    /* naga rejects the line that the standard demands. */
    if (subgroups && (g == NULL || g->api.kind != LIBRARY_WGPU)) {
        buf_printf(out, "enable subgroups; ");
    }
    if (matrix) {
        /* Which of a workgroup's subgroups a lane is in follows from its number, which the analysis
         * of uniformity takes to differ within a subgroup. */
        buf_printf(out, "enable chromium_experimental_subgroup_matrix; "
                        "diagnostic(off, chromium.subgroup_matrix_uniformity); ");
    }
    const char *text;
    for (size_t i = 0; (text = gpu_text(source->text, source->common, i)) != NULL; i++) {
        buf_add_str(out, str_of(text));
    }
    for (uint32_t i = 0; i < source->n_slots; i++) {
        add_fragment(out, fragments[i], source->slots[i]);
    }
}

static void write_label(gpu_kernel *k) {
    size_t n = (size_t)snprintf(k->label, sizeof(k->label), "%s", k->source->name);
    for (uint32_t i = 0; i < k->source->n_slots && n < sizeof(k->label); i++) {
        n += (size_t)snprintf(k->label + n, sizeof(k->label) - n, " %s", k->fragments[i]->name);
    }
}

/* ---- layouts ------------------------------------------------------------------------------- */

static void collect_bindings(gpu_kernel *k, const gpu_binding *bindings, uint32_t n, bool second) {
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t at = second ? GPU_SECOND_BINDING : bindings[i].binding;
        assert(at < GPU_BINDINGS);
        assert((k->used >> at & 1) == 0); /* embed checks all combinations */
        k->used |= 1u << at;
        k->access |= (uint32_t)bindings[i].access << (2 * at);
    }
}

static WGPUBindGroupLayout make_params_layout(gpu *g) {
    const WGPUBindGroupLayoutEntry uniform = {
        .binding = 0,
        .visibility = WGPUShaderStage_Compute,
        .buffer = { .type = WGPUBufferBindingType_Uniform, .hasDynamicOffset = true },
    };
    const WGPUBindGroupLayoutDescriptor d = { .entryCount = 1, .entries = &uniform };
    return g->api.DeviceCreateBindGroupLayout(g->device, &d);
}

static const gpu_layout *find_layout(gpu *g, uint32_t used, uint32_t access, dp_error *err) {
    for (size_t i = 0; i < g->n_layouts; i++) {
        if (g->layouts[i].used == used && g->layouts[i].access == access) return &g->layouts[i];
    }
    assert(g->n_layouts < LAYOUTS);
    static const WGPUBufferBindingType types[] = { WGPUBufferBindingType_ReadOnlyStorage,
                                                   WGPUBufferBindingType_Storage,
                                                   WGPUBufferBindingType_Uniform };
    WGPUBindGroupLayoutEntry entries[GPU_BINDINGS] = { 0 };
    size_t n = 0;
    for (uint32_t at = 0; at < GPU_BINDINGS; at++) {
        if ((used >> at & 1) == 0) continue;
        entries[n].binding = at;
        entries[n].visibility = WGPUShaderStage_Compute;
        entries[n++].buffer.type = types[access >> (2 * at) & 3];
    }
    const uint32_t scopes = scope_begin(g);
    if (g->params_layout == NULL) g->params_layout = make_params_layout(g);
    const WGPUBindGroupLayoutDescriptor d = { .entryCount = n, .entries = entries };
    gpu_layout *l = &g->layouts[g->n_layouts];
    *l = (gpu_layout){ .used = used, .access = access };
    l->group = g->api.DeviceCreateBindGroupLayout(g->device, &d);
    const WGPUBindGroupLayout groups[] = { l->group, g->params_layout };
    WGPUPipelineLayoutDescriptor p = { .bindGroupLayoutCount = 1, .bindGroupLayouts = groups };
    l->plain = g->api.DeviceCreatePipelineLayout(g->device, &p);
    p.bindGroupLayoutCount = 2;
    l->with_params = g->api.DeviceCreatePipelineLayout(g->device, &p);
    g->n_layouts++;
    return scope_end(g, scopes, err) ? l : NULL;
}

/* ---- threads ------------------------------------------------------------------------------- */

void makers_open(gpu *g) {
    pthread_mutex_init(&g->makers.lock, NULL);
    pthread_cond_init(&g->makers.changed, NULL);
    g->makers.last = &g->makers.first;
}

void makers_close(gpu *g) {
    pthread_cond_destroy(&g->makers.changed);
    pthread_mutex_destroy(&g->makers.lock);
}

/* ---- making -------------------------------------------------------------------------------- */

static void on_pipeline(WGPUCreatePipelineAsyncStatus status, WGPUComputePipeline pipeline,
                        WGPUStringView message, void *user, void *unused) {
    (void)unused;
    gpu_kernel *k = user;
    k->pending--;
    if (status == WGPUCreatePipelineAsyncStatus_Success) {
        k->pipeline = pipeline;
        return;
    }
    char text[400];
    view_copy(text, sizeof(text), message);
    err_set(&k->err, DP_E_DEVICE, "%s", text);
}

static WGPUShaderModule create_module(gpu *g, const WGPUShaderModuleDescriptor *d, dp_error *err) {
    WGPUShaderModule module;
    /* Dawn without validation (library.c) takes a pipeline of a faulty module for granted and dies
     * of it, so the module's verdict comes first; it is there at once. */
    const uint32_t scopes = scope_begin(g);
    if (g->api.kind == LIBRARY_WGPU && !g->checks) {
        /* our own kernels: every index follows from what the host has checked */
        module = g->api.DeviceCreateShaderModuleTrusted(g->device, d, WGPUShaderRuntimeChecks_None);
    } else {
        module = g->api.DeviceCreateShaderModule(g->device, d);
    }
    if (scope_end(g, scopes, err)) return module;
    if (module != NULL) g->api.ShaderModuleRelease(module);
    return NULL;
}

static void make_module(gpu_kernel *k) {
    buf text;
    buf_init(&text, TEXT_MAX);
    gpu_kernel_text(k->g, k->source, k->fragments, &text);
    if (buf_ok(&text, k->label, &k->module_err)) {
        WGPUShaderSourceWGSL wgsl = { .chain = { .sType = WGPUSType_ShaderSourceWGSL },
                                      .code = { text.data, text.size } };
        const WGPUShaderModuleDescriptor d = { .nextInChain = &wgsl.chain,
                                               .label = view_of(k->label) };
        k->module = create_module(k->g, &d, &k->module_err);
    }
    buf_free(&text);
}

/* The module of a kernel's text, made once, by the first thread that needs it. */
static WGPUShaderModule take_module(gpu_kernel *k) {
    kernel_makers *m = &k->g->makers;
    gpu_kernel *owner = k->owner;
    pthread_mutex_lock(&m->lock);
    while (owner->module_state == KERNEL_MAKING)
        pthread_cond_wait(&m->changed, &m->lock);
    if (owner->module_state == KERNEL_WAITING) {
        owner->module_state = KERNEL_MAKING;
        pthread_mutex_unlock(&m->lock);
        make_module(owner);
        pthread_mutex_lock(&m->lock);
        owner->module_state = KERNEL_MADE;
        pthread_cond_broadcast(&m->changed);
    }
    const dp_error failed = owner->module_err;
    pthread_mutex_unlock(&m->lock);
    if (failed.status != DP_OK) err_set(&k->err, failed.status, "%s", failed.message);
    return owner->module;
}

static size_t list_constants(const gpu_kernel *k, WGPUConstantEntry *out) {
    const gpu_source *s = k->source;
    for (uint32_t i = 0; i < s->n_consts; i++) {
        const unsigned char *at = k->consts + s->consts[i].offset;
        uint32_t u;
        int32_t n;
        float f;
        double value = 0;
        switch (s->consts[i].type) {
        case GPU_CONST_U32:
            memcpy(&u, at, sizeof(u)), value = u;
            break;
        case GPU_CONST_I32:
            memcpy(&n, at, sizeof(n)), value = n;
            break;
        case GPU_CONST_F32:
            memcpy(&f, at, sizeof(f)), value = (double)f;
            break;
        case GPU_CONST_BOOL:
            value = *at != 0;
            break;
        }
        assert(value - value == 0); /* WebGPU takes neither NaN nor infinities */
        out[i] = (WGPUConstantEntry){ .key = view_of(s->consts[i].name), .value = value };
    }
    return s->n_consts;
}

static void make_pipeline(gpu_kernel *k) {
    gpu *g = k->g;
    const WGPUPipelineLayout layout =
        k->source->params_size > 0 ? k->layout->with_params : k->layout->plain;
    WGPUConstantEntry constants[CONSTS_MAX];
    WGPUComputePipelineDescriptor d = {
        .label = view_of(k->label),
        .layout = layout,
        .compute = { .module = take_module(k),
                     .entryPoint = view_of(k->source->name),
                     .constants = constants },
    };
    if (d.compute.module == NULL) return;
    d.compute.constantCount = list_constants(k, constants);
    if (g->api.kind != LIBRARY_WGPU) {
        const WGPUCreateComputePipelineAsyncCallbackInfo info = {
            .mode = WGPUCallbackMode_AllowProcessEvents, .callback = on_pipeline, .userdata1 = k
        };
        k->pending++;
        k->future = g->api.DeviceCreateComputePipelineAsync(g->device, &d, info);
        return;
    }
    const uint32_t scopes = scope_begin(g);
    k->pipeline = g->api.DeviceCreateComputePipeline(g->device, &d);
    if (scope_end(g, scopes, &k->err) || k->pipeline == NULL) return;
    g->api.ComputePipelineRelease(k->pipeline);
    k->pipeline = NULL;
}

/* ---- queue --------------------------------------------------------------------------------- */

static void queue_kernel(gpu_kernel *k) {
    kernel_makers *m = &k->g->makers;
    pthread_mutex_lock(&m->lock);
    *m->last = k;
    m->last = &k->next;
    m->n_waiting++;
    pthread_mutex_unlock(&m->lock);
}

/* With the lock held: takes a kernel out of the queue, NULL the first, and makes it. False if it
 * was not there. */
static bool make_waiting(kernel_makers *m, const gpu_kernel *wanted) {
    gpu_kernel **link = &m->first;
    while (*link != NULL && wanted != NULL && *link != wanted)
        link = &(*link)->next;
    gpu_kernel *k = *link;
    if (k == NULL) return false;
    *link = k->next;
    if (m->last == &k->next) m->last = link;
    k->next = NULL;
    k->state = KERNEL_MAKING;
    m->n_waiting--;
    pthread_mutex_unlock(&m->lock);
    make_pipeline(k);
    pthread_mutex_lock(&m->lock);
    k->state = KERNEL_MADE;
    pthread_cond_broadcast(&m->changed);
    return true;
}

static void *run_maker(void *user) {
    kernel_makers *m = user;
    pthread_mutex_lock(&m->lock);
    while (!m->closing && make_waiting(m, NULL)) {
    }
    m->n_running--;
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

static void join_makers(kernel_makers *m) {
    for (uint32_t i = 0; i < m->n_threads; i++)
        pthread_join(m->threads[i], NULL);
    m->n_threads = 0;
}

void gpu_kernels_start(gpu *g) {
    kernel_makers *m = &g->makers;
    pthread_mutex_lock(&m->lock);
    const bool idle = m->n_running == 0;
    const uint32_t wanted = min_u32(min_u32(m->n_waiting, processors()), MAKERS_MAX);
    pthread_mutex_unlock(&m->lock);
    if (!idle || wanted < 2) return; /* one alone is as well made by who waits for it */
    join_makers(m);
    for (uint32_t i = 0; i < wanted; i++) {
        pthread_mutex_lock(&m->lock);
        m->n_running++;
        const bool started = pthread_create(&m->threads[i], NULL, run_maker, m) == 0;
        if (!started) m->n_running--;
        pthread_mutex_unlock(&m->lock);
        if (!started) return; /* done without */
        m->n_threads++;
    }
}

/* ---- cache --------------------------------------------------------------------------------- */

static bool is_same_text(const gpu_kernel *k, const gpu_source *source,
                         const gpu_fragment *const *fragments) {
    if (k->source != source) return false;
    for (uint32_t i = 0; i < source->n_slots; i++) {
        if (k->fragments[i] != fragments[i]) return false;
    }
    return true;
}

/* Field by field: padding of the caller's struct may hold anything. */
static bool are_same_consts(const gpu_kernel *k, const void *consts) {
    for (uint32_t i = 0; i < k->source->n_consts; i++) {
        const gpu_const *c = &k->source->consts[i];
        const size_t size = c->type == GPU_CONST_BOOL ? sizeof(bool) : 4;
        if (memcmp(k->consts + c->offset, (const char *)consts + c->offset, size) != 0)
            return false;
    }
    return true;
}

static void check_fragments(const gpu *g, const gpu_source *s,
                            const gpu_fragment *const *fragments) {
    assert(s->n_slots <= GPU_SLOTS && s->n_consts <= CONSTS_MAX);
    assert(s->params_size <= PARAMS_SLOT);
    assert(s->n_slots == 0 || fragments != NULL);
    assert(!s->needs_f16 || g->info.f16);
    assert(!s->needs_subgroups || g->info.subgroups);
    assert(!s->needs_matrix || g->info.matrix > 0);
    for (uint32_t i = 0; i < s->n_slots; i++) {
        assert(fragments[i] != NULL && strcmp(fragments[i]->slot, s->slot_of[i]) == 0);
        assert(fragments[i]->n_consts == 0);
        assert(!fragments[i]->needs_f16 || g->info.f16);
        assert(!fragments[i]->needs_subgroups || g->info.subgroups);
        assert(!fragments[i]->needs_matrix || g->info.matrix > 0);
    }
    (void)g;
}

static gpu_kernel *add_kernel(gpu *g, const gpu_source *source,
                              const gpu_fragment *const *fragments, const void *consts,
                              dp_error *err) {
    assert(g->n_kernels < KERNELS_MAX);
    if (g->n_kernels == g->max_kernels) {
        const size_t max = g->max_kernels > 0 ? g->max_kernels * 2 : 64;
        gpu_kernel **list = mem_resize(g->kernels, max, sizeof(*list), "kernels", err);
        if (list == NULL) return NULL;
        g->kernels = list;
        g->max_kernels = max;
    }
    gpu_kernel *k = mem_new(1, sizeof(*k) + source->consts_size, "a kernel", err);
    if (k == NULL) return NULL;
    k->g = g;
    k->source = source;
    for (uint32_t i = 0; i < source->n_slots; i++)
        k->fragments[i] = fragments[i];
    if (source->consts_size > 0) memcpy(k->consts, consts, source->consts_size);
    write_label(k);
    collect_bindings(k, source->bindings, source->n_bindings, false);
    for (uint32_t i = 0; i < source->n_slots; i++) {
        collect_bindings(k, fragments[i]->bindings, fragments[i]->n_bindings,
                         is_second(fragments[i], source->slots[i]));
    }
    g->kernels[g->n_kernels++] = k;
    return k;
}

const gpu_kernel *gpu_kernel_get(gpu *g, const gpu_source *source,
                                 const gpu_fragment *const *fragments, const void *consts,
                                 dp_error *err) {
    check_fragments(g, source, fragments);
    assert(source->n_consts == 0 || consts != NULL);
    gpu_kernel *owner = NULL; /* of the module: the first kernel of the same text */
    for (size_t i = 0; i < g->n_kernels; i++) {
        if (!is_same_text(g->kernels[i], source, fragments)) continue;
        if (are_same_consts(g->kernels[i], consts)) return g->kernels[i];
        if (owner == NULL) owner = g->kernels[i];
    }
    gpu_kernel *k = add_kernel(g, source, fragments, consts, err);
    if (k == NULL) return NULL;
    k->owner = owner != NULL ? owner : k;
    k->state = KERNEL_MADE; /* so far as we make it */
    if (!gpu_ok(g, &k->err)) return k;
    k->layout = find_layout(g, k->used, k->access, &k->err);
    if (k->layout == NULL) return k;
    g->stats.pipelines++;
    if (g->api.kind != LIBRARY_WGPU) {
        make_pipeline(k);
        return k;
    }
    k->state = KERNEL_WAITING;
    queue_kernel(k);
    return k;
}

/* Until our threads have made it, by this one if no other has begun. */
static void wait_for_makers(const gpu_kernel *k) {
    kernel_makers *m = &k->g->makers;
    pthread_mutex_lock(&m->lock);
    while (k->state != KERNEL_MADE) {
        if (!make_waiting(m, k)) pthread_cond_wait(&m->changed, &m->lock);
    }
    pthread_mutex_unlock(&m->lock);
}

bool kernel_wait(const gpu_kernel *k, dp_error *err) {
    gpu *g = k->g;
    wait_for_makers(k);
    while (k->pending > 0 && !atomic_load(&g->lost))
        gpu_block(g, k->future, NULL);
    if (k->err.status == DP_OK && k->pipeline != NULL) return true;
    if (!gpu_ok(g, err)) return false;
    const bool told = k->err.status != DP_OK;
    return err_set(err, told ? k->err.status : DP_E_DEVICE, "kernel %s: %s", k->label,
                   told ? k->err.message : "the device makes no pipeline of it");
}

bool gpu_kernels_wait(gpu *g, dp_error *err) {
    for (size_t i = 0; i < g->n_kernels; i++) {
        if (!kernel_wait(g->kernels[i], err)) return false;
    }
    return gpu_ok(g, err);
}

void kernels_close(gpu *g) {
    pthread_mutex_lock(&g->makers.lock);
    g->makers.closing = true;
    pthread_mutex_unlock(&g->makers.lock);
    join_makers(&g->makers);
    for (size_t i = 0; i < g->n_kernels; i++) {
        const gpu_kernel *k = g->kernels[i];
        /* A callback still to come would write into the kernel. */
        while (k->pending > 0)
            gpu_block(g, k->future, NULL);
    }
    for (size_t i = 0; i < g->n_kernels; i++) {
        gpu_kernel *k = g->kernels[i];
        if (k->pipeline != NULL) g->api.ComputePipelineRelease(k->pipeline);
        if (k->module != NULL) g->api.ShaderModuleRelease(k->module);
        mem_free(k);
    }
    mem_free(g->kernels);
    g->kernels = NULL;
    g->n_kernels = 0;
    for (size_t i = 0; i < g->n_layouts; i++) {
        g->api.PipelineLayoutRelease(g->layouts[i].with_params);
        g->api.PipelineLayoutRelease(g->layouts[i].plain);
        g->api.BindGroupLayoutRelease(g->layouts[i].group);
    }
    g->n_layouts = 0;
    if (g->params_layout != NULL) g->api.BindGroupLayoutRelease(g->params_layout);
    g->params_layout = NULL;
}
