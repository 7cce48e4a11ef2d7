"""One molecule in each lane of the processor's vectors: functions of one molecule compiled for batches.

A function of one molecule (an energy and its gradient) is traced to a graph of tensor operations, and that is written out as a C++ program
in which every number is a vector of 8 or 16, one for each molecule. Small molecules need no other parallelism: all loops are over the
entries of small tensors, nothing is padded, and what one group of molecules needs stays in the cache. What does not depend on the
coordinates (weights, noise level, types) is computed once, by torch, when the program is bound to it.

`trace` makes a graph of operations on numbered elements, `generate` the C++ source, `program` compiles, keeps and calls it.
"""
