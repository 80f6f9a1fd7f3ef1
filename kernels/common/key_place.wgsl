// key_place: keys in a page of the cache: chunks of 8 dimensions as [D8 / CHUNK_PAIR, PAGE,
// CHUNK_PAIR], two side by side or, if D8 is odd, one. 16 dimensions of a key lie together, which
// matrix units read as they are, and next to them those of the next key.
override CHUNK_PAIR: u32 = 2 - D8 % 2;

// Chunk c of a page's i-th key.
fn key_place(i: u32, c: u32) -> u32 {
    return (c / CHUNK_PAIR * PAGE + i) * CHUNK_PAIR + c % CHUNK_PAIR;
}
