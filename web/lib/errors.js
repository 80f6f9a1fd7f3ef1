// @ts-check
/**
 * The errors of the package: one class for each status of the engine (dp_status in doppler.h), each
 * with the engine's sentence, and one for what nobody foresaw. Errors cross from worker to page as
 * plain objects: packError and unpackError keep class, sentence, status and what `detail` says, and
 * nothing else.
 */

/**
 * @typedef {'argument'|'file'|'format'|'unsupported'|'limit'|'memory'|'device'|'cancelled'|
 *     'network'|'internal'} Status
 * @typedef {{cause?: unknown, detail?: Object<string, string|number|boolean>}} ErrorExtras
 * @typedef {{kind: string, status: Status, message: string,
 *     detail?: Object<string, string|number|boolean>}} PackedError
 */

/** What all errors of the package are: `status` is the kind of failure, `message` what failed. */
export class DopplerError extends Error {
    /**
     * @param {Status} status
     * @param {string} message a sentence that names the thing, the value and the limit
     * @param {ErrorExtras} [extras] `detail`: plain values for programs, as {needed, allowed}
     */
    constructor(status, message, extras = {}) {
        super(message, extras.cause === undefined ? undefined : { cause: extras.cause });
        this.name = 'DopplerError';
        this.status = status;
        this.detail = extras.detail;
    }
}

/** A call or an option makes no sense. */
export class ArgumentError extends DopplerError {
    /** @param {string} message @param {ErrorExtras} [extras] */
    constructor(message, extras) {
        super('argument', message, extras);
        this.name = 'ArgumentError';
    }
}

/** Opening or reading a file failed, or the cache could not be written. */
export class FileError extends DopplerError {
    /** @param {string} message @param {ErrorExtras} [extras] */
    constructor(message, extras) {
        super('file', message, extras);
        this.name = 'FileError';
    }
}

/** A file's content is wrong. */
export class FormatError extends DopplerError {
    /** @param {string} message @param {ErrorExtras} [extras] */
    constructor(message, extras) {
        super('format', message, extras);
        this.name = 'FormatError';
    }
}

/** Right, but not something this version does. */
export class UnsupportedError extends DopplerError {
    /** @param {string} message @param {ErrorExtras} [extras] */
    constructor(message, extras) {
        super('unsupported', message, extras);
        this.name = 'UnsupportedError';
    }
}

/** Over a stated limit: context, sessions, size. */
export class LimitError extends DopplerError {
    /** @param {string} message @param {ErrorExtras} [extras] */
    constructor(message, extras) {
        super('limit', message, extras);
        this.name = 'LimitError';
    }
}

/** The device or the host has too little memory. */
export class MemoryError extends DopplerError {
    /** @param {string} message @param {ErrorExtras} [extras] */
    constructor(message, extras) {
        super('memory', message, extras);
        this.name = 'MemoryError';
    }
}

/** No usable GPU, or it failed. */
export class DeviceError extends DopplerError {
    /** @param {string} message @param {ErrorExtras} [extras] */
    constructor(message, extras) {
        super('device', message, extras);
        this.name = 'DeviceError';
    }
}

/** The GPU was lost. Reaches the page only after the package gave up getting it back. */
export class DeviceLostError extends DeviceError {
    /** @param {string} message @param {ErrorExtras} [extras] */
    constructor(message, extras) {
        super(message, extras);
        this.name = 'DeviceLostError';
    }
}

/** The caller stopped it. Its name is the one of aborted fetches, so one test serves both. */
export class CancelledError extends DopplerError {
    /** @param {string} message @param {ErrorExtras} [extras] */
    constructor(message, extras) {
        super('cancelled', message, extras);
        this.name = 'AbortError';
    }
}

/** A server could not be reached, or did not send what it should. */
export class NetworkError extends DopplerError {
    /** @param {string} message @param {ErrorExtras} [extras] */
    constructor(message, extras) {
        super('network', message, extras);
        this.name = 'NetworkError';
    }
}

/** The worker that runs the engine did not start, ended, or said what it should not. */
export class WorkerError extends DeviceError {
    /** @param {string} message @param {ErrorExtras} [extras] */
    constructor(message, extras) {
        super(message, extras);
        this.name = 'WorkerError';
    }
}

/** A mistake of the package itself: what was thrown is none of its errors. The message is kept. */
export class InternalError extends DopplerError {
    /** @param {string} message @param {ErrorExtras} [extras] */
    constructor(message, extras) {
        super('internal', message, extras);
        this.name = 'InternalError';
    }
}

/** @type {Object<Status, new (message: string, extras?: ErrorExtras) => DopplerError>} */
const byStatus = {
    argument: ArgumentError,
    file: FileError,
    format: FormatError,
    unsupported: UnsupportedError,
    limit: LimitError,
    memory: MemoryError,
    device: DeviceError,
    cancelled: CancelledError,
    network: NetworkError,
    internal: InternalError,
};

/** Those of dp_status in its order, from 1, and behind them the package's own. */
export const statuses = /** @type {readonly Status[]} */ (Object.freeze(Object.keys(byStatus)));

/**
 * The error of the class that belongs to a status.
 * @param {Status} status @param {string} message @param {ErrorExtras} [extras]
 * @returns {DopplerError}
 */
export function makeError(status, message, extras) {
    const Kind = Object.hasOwn(byStatus, status) ? byStatus[status] : InternalError;
    return new Kind(message, extras);
}

/**
 * Whatever was thrown as an error of the package: aborts become CancelledError, everything unknown
 * gets `status`.
 * @param {unknown} thrown @param {Status} [status]
 * @returns {DopplerError}
 */
export function asError(thrown, status = 'internal') {
    if (thrown instanceof DopplerError) return thrown;
    const message = thrown instanceof Error ? thrown.message : String(thrown);
    if (isAbort(thrown)) return new CancelledError(message || 'cancelled', { cause: thrown });
    return makeError(status, message || 'failed without saying why', { cause: thrown });
}

/** @param {unknown} thrown */
export function isAbort(thrown) {
    return typeof thrown === 'object' && thrown !== null && 'name' in thrown &&
        thrown.name === 'AbortError';
}

/**
 * Throws if the signal is aborted. TimeoutError and own reasons of the caller are named in the
 * sentence.
 * @param {AbortSignal} [signal]
 */
export function throwIfAborted(signal) {
    if (signal?.aborted) throw cancelled(signal);
}

/**
 * The error of an aborted signal, its reason as the cause.
 * @param {AbortSignal} signal
 */
export function cancelled(signal) {
    const { reason } = signal;
    if (reason instanceof CancelledError) return reason;
    const why = reason instanceof Error && reason.name !== 'AbortError' ? reason.message : '';
    return new CancelledError(why ? `cancelled: ${why}` : 'cancelled', { cause: reason });
}

const LONGEST_MESSAGE = 4096;

/**
 * As plain data, for postMessage.
 * @param {unknown} thrown
 * @returns {PackedError}
 */
export function packError(thrown) {
    const error = asError(thrown);
    const { status, detail, message } = error;
    const packed = { kind: error.name, status, message: message.slice(0, LONGEST_MESSAGE) };
    return detail === undefined ? packed : { ...packed, detail };
}

/**
 * The error that packError was given, as the same class.
 * @param {PackedError} packed
 * @returns {DopplerError}
 */
export function unpackError(packed) {
    const { kind, status, message, detail } = packed;
    if (kind === 'DeviceLostError') return new DeviceLostError(message, { detail });
    if (kind === 'WorkerError') return new WorkerError(message, { detail });
    return makeError(status, message, { detail });
}
