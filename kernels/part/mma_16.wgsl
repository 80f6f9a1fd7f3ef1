// mma_16: matrices of half floats of 16 by 16.
const MMA = 16u;
