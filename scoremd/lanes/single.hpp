// As kernels.hpp for one molecule at a time: what there runs over molecules runs over neighbouring numbers here, in vectors that the
// compiler makes of loops, and by hand in products.
#include <cstdint>

constexpr int L = 1;
typedef float v;
typedef float v8 __attribute__((vector_size(32)));
typedef float v4 __attribute__((vector_size(16)));

#define at(x, l) (x)
#define UNROLL _Pragma("GCC unroll 16")

static inline v root(v x) { return __builtin_sqrtf(x); }

static inline v nearest(v x) { return __builtin_rintf(x); }

static inline v power_of_two(v n) {
    int32_t whole = ((int32_t)n + 127) << 23;
    v power;
    __builtin_memcpy(&power, &whole, sizeof power);
    return power;
}

// vectors from and to where they need not be aligned
template <typename W>
static inline W loaded(const float* from) {
    W w;
    __builtin_memcpy(&w, from, sizeof w);
    return w;
}

// RM rows of a (strides sm, sk) times RN vectors W of columns of u (rows of length N), sums kept in registers
template <typename W, int RM, int RN>
static inline __attribute__((always_inline)) void block(const v* a, int sm, int sk, const float* u, int N, int K, const float* bias, v* out) {
    constexpr int S = sizeof(W) / sizeof(float);
    W sum[RM][RN];
    UNROLL for (int i = 0; i < RM; i++) UNROLL for (int j = 0; j < RN; j++) sum[i][j] = bias ? loaded<W>(bias + S * j) : W{};
    for (int k = 0; k < K; k++) {
        W w[RN];
        UNROLL for (int j = 0; j < RN; j++) w[j] = loaded<W>(u + k * N + S * j);
        UNROLL for (int i = 0; i < RM; i++) UNROLL for (int j = 0; j < RN; j++) sum[i][j] += a[i * sm + k * sk] * w[j];
    }
    UNROLL for (int i = 0; i < RM; i++) UNROLL for (int j = 0; j < RN; j++) __builtin_memcpy(out + i * N + S * j, &sum[i][j], sizeof(W));
}

template <int RM>
static inline void rows(const v* a, int sm, int sk, const float* u, int N, int K, const float* bias, v* out) {
    constexpr int RN = RM == 1 ? 8 : 3;
    int j = 0;
    auto b = [&] { return bias ? bias + j : nullptr; };
    for (; j + 8 * RN <= N; j += 8 * RN) block<v8, RM, RN>(a, sm, sk, u + j, N, K, b(), out + j);
    for (; j + 8 <= N; j += 8) block<v8, RM, 1>(a, sm, sk, u + j, N, K, b(), out + j);
    for (; j + 4 <= N; j += 4) block<v4, RM, 1>(a, sm, sk, u + j, N, K, b(), out + j);
    for (; j < N; j++) block<float, RM, 1>(a, sm, sk, u + j, N, K, b(), out + j);
}

// out (M, N) = a (M, K) u (K, N) + bias (N)
static __attribute__((noinline)) void product(const v* a, int M, int sm, int sk, const float* u, int N, int K, const float* bias, v* out) {
    int m = 0;
    for (; m + 4 <= M; m += 4) rows<4>(a + m * sm, sm, sk, u, N, K, bias, out + m * N);
    for (; m < M; m++) rows<1>(a + m * sm, sm, sk, u, N, K, bias, out + m * N);
}
