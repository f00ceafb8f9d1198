"""The steps of training that are bound by memory, as Triton kernels: each reads its input once and
writes its output once. And the convolution (`convolve.py`), which is bound by arithmetic and
competes with the library's.

Every file has the same anatomy: the kernel, with shapes on its pointers; where there is a gradient,
the operator that launches it, which PyTorch knows by name, with a shape rule and its backward; and
the public function, whose signature and meaning are those of `kernels/reference.py`. (The
convolution's passes are plain functions, each chosen by itself in `kernels/convolutions.py`.) Where
a kernel does not cover a case, its public function hands it to the reference.

All arithmetic is float32, whatever the tensors hold, with products and sums fused
(`enable_fp_fusion`). Maps lie channels-last, (N, H, W, C) in memory, because cuDNN's convolutions
want them so in bfloat16, and because the channels over which the normalisation sums are then side
by side. Offsets within a tensor are 32-bit numbers. With TRITON_INTERPRET=1 the same functions run,
slowly, on tensors of the CPU: that is how the tests see them. Tile sizes are measured at first use
on the GPU at hand, and kept on disk (`tiles.py`).

Bytes per image at AlexNet's sizes in bfloat16, and the time they take at 4.3
TB/s, which is a prediction:

    relu_lrn_pool       block 1   forward   791 kB   0.18 us     backward 1.37 MB   0.32 us
                        block 2   forward   503 kB   0.12 us     backward  876 kB   0.20 us
                        block 5   forward   114 kB   0.03 us     backward  201 kB   0.05 us
    bias_relu           conv3, 4  forward   519 kB   0.12 us     backward  779 kB   0.18 us
    augment             to blocks           387 kB   0.09 us     and the mean image from the cache
    relu_dropout        fc6 and fc7          33 kB   0.01 us     backward   49 kB   0.01 us
    cross_entropy_topk  float32 logits        8 kB   0.00 us
    sgd_step            22 bytes per parameter: 1.34 GB and 312 us per step, 2.4 us per image of a
                        batch of 128
"""
