// mma_8: matrices of half floats of 8 by 8.
const MMA = 8u;
const SUBS = 8u; // subgroups of a workgroup, at most
