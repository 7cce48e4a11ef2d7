// What the generated programs use: vectors of one number for each molecule, and products with matrices that all molecules share.
#include <cstdint>

#ifdef __AVX512F__
constexpr int L = 16;
#else
constexpr int L = 8;
#endif
typedef float v __attribute__((vector_size(4 * L), aligned(4 * L)));
typedef int32_t whole __attribute__((vector_size(4 * L), aligned(4 * L)));

#define UNROLL _Pragma("GCC unroll 16")

static inline v square(v x) { return x * x; }

static inline v root(v x) {
    v r;
    UNROLL for (int l = 0; l < L; l++) r[l] = __builtin_sqrtf(x[l]);
    return r;
}

// 2^n e^r with |r| <= ln(2) / 2, e^r by its polynomial of least error (Cephes, S. Moshier)
static inline v exponential(v x) {
    x = x < -87.0f ? v{} - 87.0f : x;
    x = x > 88.0f ? v{} + 88.0f : x;
    v n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // rounds to the nearest integer: needs the order of operations kept
    v r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    v p = 1.9875691500e-4f * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (v)((__builtin_convertvector(n, whole) + 127) << 23);
}

static inline v sigmoid(v x) { return 1.0f / (1.0f + exponential(-x)); }

static inline v tangent(v x) { return 1.0f - 2.0f / (1.0f + exponential(2.0f * x)); }

// RM rows of a (strides sm, sk) times RN columns of u (rows of length ld), sums kept in registers
template <int RM, int RN>
static inline __attribute__((always_inline)) void block(const v* a, int sm, int sk, const float* u, int ld, int K, const float* bias, v* out) {
    v sum[RM][RN];
    UNROLL for (int i = 0; i < RM; i++) UNROLL for (int j = 0; j < RN; j++) sum[i][j] = v{} + (bias ? bias[j] : 0.0f);
    for (int k = 0; k < K; k++) {
        v x[RM];
        UNROLL for (int i = 0; i < RM; i++) x[i] = a[i * sm + k * sk];
        UNROLL for (int j = 0; j < RN; j++) {
            v w = v{} + u[k * ld + j];
            UNROLL for (int i = 0; i < RM; i++) sum[i][j] += x[i] * w;
        }
    }
    UNROLL for (int i = 0; i < RM; i++) UNROLL for (int j = 0; j < RN; j++) out[i * ld + j] = sum[i][j];
}

template <int RM, int RN>
static inline void rows(const v* a, int sm, int sk, const float* u, int N, int K, const float* bias, v* out) {
    int j = 0;
    for (; j + RN <= N; j += RN) block<RM, RN>(a, sm, sk, u + j, N, K, bias ? bias + j : nullptr, out + j);
    for (; j + 4 <= N; j += 4) block<RM, 4>(a, sm, sk, u + j, N, K, bias ? bias + j : nullptr, out + j);
    for (; j < N; j++) block<RM, 1>(a, sm, sk, u + j, N, K, bias ? bias + j : nullptr, out + j);
}

// out (M, N) = a (M, K) u (K, N) + bias (N), a and out in lanes
static __attribute__((noinline)) void product(const v* a, int M, int sm, int sk, const float* u, int N, int K, const float* bias, v* out) {
    int m = 0;
    for (; m + 3 <= M; m += 3) rows<3, 4>(a + m * sm, sm, sk, u, N, K, bias, out + m * N);
    if (M - m == 2) rows<2, 6>(a + m * sm, sm, sk, u, N, K, bias, out + m * N);
    if (M - m == 1) rows<1, 12>(a + m * sm, sm, sk, u, N, K, bias, out + m * N);
}
