// mma_16: matrices of half floats of 16 by 16.
const MMA = 16u;
const SUBS = 4u; // subgroups of a workgroup, at most
