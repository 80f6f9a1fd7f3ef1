// @ts-check
/**
 * layout: where the pieces of a plan are.
 */

/** @typedef {import('./plan.js').Plan} Plan */

/**
 * Where the pieces of a plan are: in their files, and in `data`, where weights come first so that
 * another text beside them does not move them.
 */
export class Layout {
    /** @param {Plan} plan */
    constructor(plan) {
        this.files = plan.files.map((file) => (
            { file, first: 0, count: Math.ceil(file.size / file.pieceBytes), place: 0 }));
        this.count = 0;
        this.bytes = 0;
        for (const part of this.files) {
            part.first = this.count;
            this.count += part.count;
            this.bytes += part.file.size;
        }
        let place = 0;
        for (const isWeights of [true, false]) {
            for (const part of this.files) {
                if (part.file.weights !== isWeights) continue;
                part.place = place;
                place += part.file.size;
            }
        }
        this.fileOf = new Uint32Array(this.count);
        this.files.forEach(({ first, count }, i) => this.fileOf.fill(i, first, first + count));
    }

    /** @param {number} piece */
    partOf(piece) {
        return this.files[this.fileOf[piece]];
    }

    /** First byte in the file. @param {number} piece */
    startOf(piece) {
        const { file, first } = this.partOf(piece);
        return (piece - first) * file.pieceBytes;
    }

    /** @param {number} piece */
    lengthOf(piece) {
        const { file } = this.partOf(piece);
        return Math.min(file.pieceBytes, file.size - this.startOf(piece));
    }

    /** First byte in `data`. @param {number} piece */
    placeOf(piece) {
        return this.partOf(piece).place + this.startOf(piece);
    }

    /** "shard_00000.bin, piece 3 of 8" @param {number} piece */
    show(piece) {
        const { file, first, count } = this.partOf(piece);
        return `${file.name}, piece ${piece - first + 1} of ${count}`;
    }
}
