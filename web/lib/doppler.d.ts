/**
 * Language models on the visitor's GPU, in a page or in Node.
 *
 * A model is loaded once and lives in a worker of its own until it is closed. Everything here
 * returns at once: what takes time is a promise. Failures are DopplerError with a sentence that
 * names what failed; `status` says what kind. Options may always be left out.
 */

// ---- errors -------------------------------------------------------------------------------------

export type Status = 'argument' | 'file' | 'format' | 'unsupported' | 'limit' | 'memory' |
    'device' | 'cancelled' | 'network' | 'internal';

export interface ErrorExtras {
    cause?: unknown;
    /** Plain values for programs. */
    detail?: Record<string, string | number | boolean>;
}

export class DopplerError extends Error {
    constructor(status: Status, message: string, extras?: ErrorExtras);
    readonly status: Status;
    readonly detail?: Record<string, string | number | boolean>;
}
/** A call or an option makes no sense. */
export class ArgumentError extends DopplerError {}
/** Opening or reading a file failed. */
export class FileError extends DopplerError {}
/** A file's content is wrong. */
export class FormatError extends DopplerError {}
/** Right, but not something this version does. */
export class UnsupportedError extends DopplerError {}
/** Over a stated limit: context, sessions, size. */
export class LimitError extends DopplerError {}
/** The device or the host has too little memory. */
export class MemoryError extends DopplerError {}
/** No usable GPU, or it failed. */
export class DeviceError extends DopplerError {}
/** The GPU was lost more often than it is brought back. */
export class DeviceLostError extends DeviceError {}
/** The worker did not start, was ended from outside, or misbehaved. */
export class WorkerError extends DeviceError {}
/** The caller stopped it; `name` is "AbortError". */
export class CancelledError extends DopplerError {}
/** A server could not be reached, or did not send what it should. */
export class NetworkError extends DopplerError {}
/** A mistake of the package itself, with the message of what was thrown. The model may be broken:
 * close it and load it again. */
export class InternalError extends DopplerError {}

/** What chat.completions fails with: OpenAI's form of an error. */
export class ApiError extends Error {
    /** HTTP's, as a server would answer. */
    readonly status: number;
    readonly type: string;
    readonly param: string | null;
    readonly code: string | null;
    readonly error: { message: string; type: string; param: string | null; code: string | null };
}

// ---- loading ------------------------------------------------------------------------------------

/** A FileSystemHandle, described here because programs for Node do not know the name. */
export interface PickedHandle {
    readonly kind: 'file' | 'directory';
    readonly name: string;
}

/** A FileList, for the same reason. */
export interface PickedFiles {
    readonly length: number;
    item(index: number): File | null;
    readonly [index: number]: File;
}

/**
 * Where a model is: a URL of an RDRR folder or its manifest.json, of a .gguf (of a split one any),
 * or of a safetensors folder, relative to the page; a picked file, all files of a picked folder, or
 * a handle of either, also handles of all files; "cache:NAME" for what is kept; or a plain name,
 * which means a kept model or one beside the package ("tale-8m"). In Node also a path.
 */
export type Source = string | URL | File | PickedFiles | PickedHandle | (File | PickedHandle)[];

export interface Progress {
    phase: 'device' | 'open' | 'download' | 'verify' | 'upload' | 'compile' | 'ready';
    /** Bytes of `total`; 0 of 0 while that is not known. Phases overlap: weights are uploaded while
     * others are still downloaded. */
    loaded: number;
    total: number;
    /** For people, in English. */
    text: string;
    /** Bytes in a second, of downloads. */
    rate?: number;
}

export interface DeviceOptions {
    /** Pretend that the device has no half floats, no subgroup operations, no packed integers. */
    noF16?: boolean;
    noSubgroups?: boolean;
    noInt8?: boolean;
    /** Bytes in one binding at most; 0: the device's limit. */
    maxBinding?: number;
    /** Bytes on the device at most; 0: what it grants. */
    maxMemory?: number;
    /** Take a software device where there is a choice. */
    fallback?: boolean;
}

/** What is used of a Worker. */
export interface WorkerLike {
    postMessage(message: any, transfer: any[]): void;
    addEventListener(type: string, listener: (event: any) => void): void;
}

export interface LoadOptions {
    /** At most some twenty times a second. */
    onProgress?: (progress: Progress) => void;
    /** Stops loading: load() rejects with CancelledError, what was downloaded stays. */
    signal?: AbortSignal;
    device?: DeviceOptions;
    /** Bytes that the model may take on the GPU. What it needs is computed from its description and
     * compared before weights are downloaded: MemoryError says both. */
    maxMemory?: number;
    /** Tokens that all sessions hold together; 0: the model's own context, at most 8,192. */
    context?: number;
    /** Sessions at a time, generate() without a session included; 8. */
    sessions?: number;
    /** Most tokens of a prompt in one pass; 512. */
    batch?: number;
    /** False: nothing is kept in the browser's private files, nor read from them. */
    cache?: boolean;
    /** Ask the browser to promise that it keeps the model. Firefox asks the visitor. */
    persist?: boolean;
    /** Where doppler.wasm is, if not beside the package's lib/. */
    wasm?: string | URL;
    /** A worker made by the page from lib/worker.js, or the URL of one; false: none, the engine
     * runs in the thread that calls, as it does in Node anyway. */
    worker?: WorkerLike | string | URL | false;
    /** In Node: a GPU instead of the one that npm `webgpu` gives. */
    gpu?: unknown;
    onLog?: (level: 'warning' | 'info' | 'debug', line: string) => void;
    /** A lost GPU was replaced, for the n-th time: another device may have another name. */
    onDevice?: (info: DeviceInfo, recoveries: number) => void;
}

export interface DeviceInfo {
    name: string;
    vendor: string;
    /** In use, not merely offered. */
    f16: boolean;
    subgroups: boolean;
    int8: boolean;
    subgroupSize: number;
    /** Bytes. */
    maxBinding: number;
    maxBuffer: number;
    /** Which kernels run, as "f16 + subgroups", and why. */
    tier: string;
    why: string[];
    [more: string]: unknown;
}

export interface ModelInfo {
    name: string;
    architecture: string;
    /** "gguf", "safetensors" or "rdrr". */
    container: string;
    /** Of most weights: "q4_k". */
    format: string;
    /** Tokens that all sessions hold together. */
    context: number;
    vocabSize: number;
    /** Jinja source; empty if the model is none for conversations. */
    chatTemplate: string;
    /** The tokens that begin and end a text; left out where there are none. */
    bos?: number;
    eos?: number;
    parameters: number;
    weightBytes: number;
    /** Bytes on the GPU. */
    memory: { weights: number; kvCache: number; activations: number; total: number };
    [more: string]: unknown;
}

/**
 * Loads a model: opens the GPU, tests it, reads the model's description, compares what it needs
 * with what there is, and brings its weights to the GPU while they are downloaded. They are kept,
 * and the next time nothing is downloaded.
 */
export function load(source: Source, options?: LoadOptions): Promise<Model>;

// ---- models -------------------------------------------------------------------------------------

export interface TemplateOptions {
    /** What the template gets as `tools`. */
    tools?: object[];
    /** Further variables of the template, as {enable_thinking: false}. */
    variables?: Record<string, unknown>;
    /** True: end with what opens the answer. */
    generationPrompt?: boolean;
    /** Jinja source instead of the model's own. */
    chatTemplate?: string;
    /** Seconds since 1970 where the template asks for the date; the clock's. */
    now?: number;
}

export interface Message {
    role: string;
    content?: string | null | object[];
    [more: string]: unknown;
}

/** A text, tokens, or a conversation that the model's template turns into a prompt. */
export type Prompt = string | readonly number[] | Uint32Array | Int32Array | readonly Message[];

export interface GenerateOptions extends TemplateOptions {
    /** Stops within one submit; the answer ends with what it has, `finish` is "cancelled". */
    signal?: AbortSignal;
    /** 0: to the end of the context. */
    maxTokens?: number;
    /** 0, the default: always the most likely token. */
    temperature?: number;
    /** Only the k most likely; 0: all. */
    topK?: number;
    /** Only the most likely that together reach p; 0 or 1: all. */
    topP?: number;
    /** Nothing less likely than min_p times the most likely; 0: all. */
    minP?: number;
    /** Divides the logits of tokens that occurred; 1: does nothing. */
    repeatPenalty?: number;
    presencePenalty?: number;
    frequencyPenalty?: number;
    /** Same device, model, prompt and seed: same answer. Left out, one is chosen and told. */
    seed?: number;
    /** Texts that end the answer and are no part of it: at most 16 of 1 to 256 characters. */
    stop?: string[];
    /** Tell that many of the most likely tokens at each place, at most 32. One token per submit. */
    logprobs?: number;
    /** Go on after the tokens that end an answer. */
    ignoreStops?: boolean;
    /** Spell special tokens out in the text. */
    special?: boolean;
    /** Of a prompt that is a text: begin as the tokenizer does (default true), and read spelt-out
     * special tokens as such (default false: a visitor's text must not end its own turn). */
    addSpecial?: boolean;
    parseSpecial?: boolean;
}

export interface Logprob {
    token: number;
    text: string;
    /** Natural logarithm of the probability in the model's own distribution. */
    logprob: number;
}

export interface TokenLogprob extends Logprob {
    /** Most likely first. */
    top: Logprob[];
}

export interface Piece {
    /** Whole characters; may be empty. */
    text: string;
    tokens: number[];
    logprobs?: TokenLogprob[];
}

export interface Result extends Piece {
    finish: 'stop' | 'length' | 'cancelled';
    usage: {
        promptTokens: number;
        /** Of them, those that a session still held and that were not read again. */
        cachedTokens: number;
        completionTokens: number;
        totalTokens: number;
    };
    timings: {
        /** From the prompt's turn to the first text. */
        promptSeconds: number;
        /** From the call to the first text. */
        firstSeconds: number;
        seconds: number;
        promptPerSecond: number;
        /** After the first text. */
        tokensPerSecond: number;
    };
    /** What gives the same answer again. */
    seed: number;
    /** How often the GPU was lost meanwhile. The text does not show it. */
    recoveries: number;
}

/** An answer that is being written: iterate it for its pieces, await it for the whole. */
export interface Generation extends AsyncIterable<Piece>, PromiseLike<Result> {
    /** Leaving the loop cancels the generation. */
    [Symbol.asyncIterator](): AsyncGenerator<Piece, Result, void>;
    cancel(): void;
    catch<T>(onError: (error: unknown) => T): Promise<Result | T>;
    finally(onEnd: () => void): Promise<Result>;
}

/** Since the device was opened, where nothing else is said. */
export interface Stats {
    /** Submissions to the GPU, and dispatches in them. */
    submits: number;
    dispatches: number;
    /** Bytes to and from the GPU. */
    bytesRead: number;
    bytesWritten: number;
    /** Bytes on the GPU now, and at most. */
    deviceBytes: number;
    deviceBytesPeak: number;
    /** Kernels that are compiled. */
    pipelines: number;
    /** Milliseconds in which commands were written and handed over. */
    encodeMs: number;
    submitMs: number;
    /** Bytes of the engine's memory beside the GPU's; it does not shrink. */
    wasmBytes: number;
    /** Of the model: places that are taken, those of them that no call uses, and lost GPUs. */
    sessions: number;
    idleSessions: number;
    recoveries: number;
    [more: string]: unknown;
}

export class Model {
    private constructor();
    readonly info: ModelInfo;
    readonly deviceInfo: DeviceInfo;
    /** Sentences about what is not as it should be, as a cache without room. */
    readonly notes: string[];
    readonly recoveries: number;
    readonly chat: Chat;
    readonly cache: Cache;

    /** Continues a prompt. Several run at once: their tokens share passes over the weights. A
     * prompt that begins like an earlier one is not read again as far as that is still held. */
    generate(prompt: Prompt, options?: GenerateOptions): Generation;
    tokenize(text: string, options?: { addSpecial?: boolean; parseSpecial?: boolean;
        signal?: AbortSignal }): Promise<number[]>;
    detokenize(tokens: readonly number[] | Uint32Array | Int32Array,
        options?: { special?: boolean; signal?: AbortSignal }): Promise<string>;
    /** The text of a prompt, as the model's chat template writes it. */
    template(messages: readonly Message[],
        options?: TemplateOptions & { signal?: AbortSignal }): Promise<string>;
    /** Its tokens; control tokens are those that the template wrote, none that a message spells. */
    chatTokens(messages: readonly Message[],
        options?: TemplateOptions & { signal?: AbortSignal }): Promise<number[]>;
    /** Of what may follow the prompt, [info.vocabSize], before any sampling. */
    logits(prompt: Prompt, options?: { signal?: AbortSignal }): Promise<Float32Array>;
    /** LimitError if all places are taken. */
    newSession(options?: { signal?: AbortSignal }): Promise<Session>;
    stats(): Promise<Stats>;
    /** Destroys the GPU device, as a crashed driver does: for tests. */
    loseDevice(): Promise<void>;
    /** Cancels what runs, frees all memory on the GPU and ends the worker. Fine a second time. */
    close(): Promise<void>;
}

/** A conversation or a text that grows. It keeps its place, and what the GPU computed of it. */
export class Session {
    private constructor();
    /** Makes the prompt what the session holds, reading only what differs from what it held, and
     * continues it. Without a prompt it goes on from where it is. */
    generate(prompt?: Prompt | null, options?: GenerateOptions): Generation;
    /** Reads more; how many tokens the session holds then. */
    append(prompt: Prompt, options?: { signal?: AbortSignal }): Promise<number>;
    /** Of what may follow what it holds, or the prompt. */
    logits(prompt?: Prompt | null, options?: { signal?: AbortSignal }): Promise<Float32Array>;
    tokens(): Promise<number[]>;
    /** Forgets all but the first n tokens. */
    rewind(n: number): Promise<void>;
    /** Stops what runs in it and frees its place. Fine a second time, and after its model's. */
    close(): Promise<void>;
}

// ---- the cache ----------------------------------------------------------------------------------

export interface CacheEntry {
    id: string;
    name: string;
    /** Where it came from. */
    source: string;
    /** Of the whole model, and those that are kept. */
    bytes: number;
    stored: number;
    complete: boolean;
    /** Milliseconds since 1970; 0 if that is not known. */
    lastUsed: number;
}

export interface Cache {
    list(): Promise<CacheEntry[]>;
    /** By name, id or source. FileError if there is none or it is being loaded. */
    remove(name: string): Promise<{ removed: number; bytes: number }>;
    /** Everything. */
    purge(): Promise<{ removed: number; bytes: number }>;
    /** Bytes: what the browser allows and uses, and what models take of it. */
    estimate(): Promise<{ quota: number; usage: number; [more: string]: number }>;
}

/** The cache without a model. */
export const cache: Cache;

// ---- OpenAI's shape -----------------------------------------------------------------------------

export interface ChatRequest {
    messages: Message[];
    /** What is not done here but harmless is ignored: there is one model. */
    model?: string;
    stream?: boolean | null;
    stream_options?: { include_usage?: boolean } | null;
    n?: number | null;
    max_tokens?: number | null;
    max_completion_tokens?: number | null;
    /** 1, as theirs; 0 is greedy. */
    temperature?: number | null;
    top_p?: number | null;
    top_k?: number | null;
    min_p?: number | null;
    repetition_penalty?: number | null;
    presence_penalty?: number | null;
    frequency_penalty?: number | null;
    seed?: number | null;
    stop?: string | string[] | null;
    logprobs?: boolean | null;
    top_logprobs?: number | null;
    /** Given to the chat template; calls come back as the text that the model writes. */
    tools?: object[] | null;
    tool_choice?: 'auto' | 'none' | null;
    /** Further variables of the chat template. */
    chat_template_kwargs?: Record<string, unknown> | null;
    response_format?: { type: 'text' } | null;
    logit_bias?: Record<string, never> | null;
    /** What concerns their service is taken, and does nothing. */
    user?: string | null;
    metadata?: unknown;
    store?: unknown;
    service_tier?: unknown;
    safety_identifier?: unknown;
    prompt_cache_key?: unknown;
    prompt_cache_retention?: unknown;
    parallel_tool_calls?: unknown;
}

export interface ChatLogprobs {
    content: { token: string; logprob: number; bytes: number[] | null;
        top_logprobs: { token: string; logprob: number; bytes: number[] | null }[] }[];
    refusal: null;
}

export interface ChatUsage {
    prompt_tokens: number;
    completion_tokens: number;
    total_tokens: number;
    prompt_tokens_details: { cached_tokens: number };
}

export interface ChatCompletion {
    id: string;
    object: 'chat.completion';
    created: number;
    model: string;
    system_fingerprint: string;
    choices: { index: number; message: { role: 'assistant'; content: string; refusal: null };
        logprobs: ChatLogprobs | null; finish_reason: 'stop' | 'length' }[];
    usage: ChatUsage;
}

export interface ChatChunk {
    id: string;
    object: 'chat.completion.chunk';
    created: number;
    model: string;
    system_fingerprint: string;
    choices: { index: number; delta: { role?: 'assistant'; content?: string; refusal?: null };
        logprobs: ChatLogprobs | null; finish_reason: 'stop' | 'length' | null }[];
    usage?: ChatUsage | null;
}

export interface ChatStream extends AsyncIterable<ChatChunk> {
    readonly controller: AbortController;
}

export interface Chat {
    completions: {
        /** Rejects with ApiError, or CancelledError if the signal is aborted. */
        create(request: ChatRequest & { stream: true },
            options?: { signal?: AbortSignal }): Promise<ChatStream>;
        create(request: ChatRequest & { stream?: false | null },
            options?: { signal?: AbortSignal }): Promise<ChatCompletion>;
        create(request: ChatRequest,
            options?: { signal?: AbortSignal }): Promise<ChatCompletion | ChatStream>;
    };
}

/** Of the package. */
export const version: string;
