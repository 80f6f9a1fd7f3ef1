// key_place: keys in a page of the cache: [D8 / PAIR, PAGE, PAIR] chunks of 8 dimensions, PAIR 2 or
// if D8 is odd 1. 16 dimensions of a key lie together, which matrix units read as they are, and
// next to them those of the next key.
override PAIR: u32 = 2 - D8 % 2;

// Chunk c of a page's i-th key.
fn key_place(i: u32, c: u32) -> u32 {
    return (c / PAIR * PAGE + i) * PAIR + c % PAIR;
}
