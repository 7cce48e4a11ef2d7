// What the generated programs use: vectors of one number for each molecule, and products with matrices that all molecules share.
#include <cstdint>

#ifdef __AVX512F__
constexpr int L = 16;
#else
constexpr int L = 8;
#endif
typedef float v __attribute__((vector_size(4 * L), aligned(4 * L)));
typedef int32_t whole __attribute__((vector_size(4 * L), aligned(4 * L)));

#define at(x, l) (x)[l]
#define UNROLL _Pragma("GCC unroll 16")

static inline v root(v x) {
    v r;
    UNROLL for (int l = 0; l < L; l++) r[l] = __builtin_sqrtf(x[l]);
    return r;
}

// rounds to the nearest integer: needs the order of operations kept
static inline v nearest(v x) { return (x + 12582912.0f) - 12582912.0f; }

static inline v power_of_two(v n) { return (v)((__builtin_convertvector(n, whole) + 127) << 23); }

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

// one row of a (stride sk) times u; sums are kept in memory, so that u, which may be large, is read in its order
static inline void row(const v* a, int sk, const float* u, int N, int K, const float* bias, v* out) {
    constexpr int RK = 6;
    for (int j = 0; j < N; j++) out[j] = v{} + (bias ? bias[j] : 0.0f);
    int k = 0;
    for (; k + RK <= K; k += RK) {
        v x[RK];
        UNROLL for (int i = 0; i < RK; i++) x[i] = a[(k + i) * sk];
        for (int j = 0; j < N; j++) {
            v s = out[j];
            UNROLL for (int i = 0; i < RK; i++) s += x[i] * (v{} + u[(k + i) * N + j]);
            out[j] = s;
        }
    }
    for (; k < K; k++)
        for (int j = 0; j < N; j++) out[j] += a[k * sk] * (v{} + u[k * N + j]);
}

// out (M, N) = a (M, K) u (K, N) + bias (N), a and out in lanes
static __attribute__((noinline)) void product(const v* a, int M, int sm, int sk, const float* u, int N, int K, const float* bias, v* out) {
    int m = 0;
    for (; m + 3 <= M; m += 3) rows<3, 4>(a + m * sm, sm, sk, u, N, K, bias, out + m * N);
    if (M - m == 2) rows<2, 6>(a + m * sm, sm, sk, u, N, K, bias, out + m * N);
    if (M - m == 1) row(a + m * sm, sk, u, N, K, bias, out + m * N);
}

static inline float sum(v x) {
    float s = 0;
    for (int l = 0; l < L; l++) s += x[l];
    return s;
}

typedef float v8 __attribute__((vector_size(32), aligned(32)));
typedef int32_t whole8 __attribute__((vector_size(32), aligned(32)));

static inline v8 folded(v x) {
#ifdef __AVX512F__
    v8 low, high;
    __builtin_memcpy(&low, &x, 32);
    __builtin_memcpy(&high, (const char*)&x + 32, 32);
    return low + high;
#else
    return x;
#endif
}

// sums of neighbours: those of a in even places, those of b in odd ones
static inline v8 paired(v8 a, v8 b) {
    return __builtin_shuffle(a, b, whole8{0, 8, 2, 10, 4, 12, 6, 14}) + __builtin_shuffle(a, b, whole8{1, 9, 3, 11, 5, 13, 7, 15});
}
static inline v8 paired2(v8 a, v8 b) {
    return __builtin_shuffle(a, b, whole8{0, 1, 8, 9, 4, 5, 12, 13}) + __builtin_shuffle(a, b, whole8{2, 3, 10, 11, 6, 7, 14, 15});
}
static inline v8 paired4(v8 a, v8 b) {
    return __builtin_shuffle(a, b, whole8{0, 1, 2, 3, 8, 9, 10, 11}) + __builtin_shuffle(a, b, whole8{4, 5, 6, 7, 12, 13, 14, 15});
}

// sums over the lanes of eight vectors
static inline v8 sums(const v* x) {
    v8 a = paired2(paired(folded(x[0]), folded(x[1])), paired(folded(x[2]), folded(x[3])));
    v8 b = paired2(paired(folded(x[4]), folded(x[5])), paired(folded(x[6]), folded(x[7])));
    return paired4(a, b);
}

// y (M, N; rows ym apart) += sum over lanes of a (M; stride am) b (N; stride bn): the lanes are what is summed over, so vectors run over N
static inline void outer(const v* a, int M, int am, const v* b, int N, int bn, float* y, int ym) {
    float t[L * N];
    for (int n = 0; n < N; n++)
        for (int l = 0; l < L; l++) t[l * N + n] = b[n * bn][l];
    for (int m = 0; m < M; m++) {
        v x = a[m * am];
        float* row = y + m * ym;
        int n = 0;
        for (; n + L <= N; n += L) {
            v s, z;
            __builtin_memcpy(&s, row + n, sizeof s);
            UNROLL for (int l = 0; l < L; l++) {
                __builtin_memcpy(&z, t + l * N + n, sizeof z);
                s += z * x[l];
            }
            __builtin_memcpy(row + n, &s, sizeof s);
        }
        for (; n < N; n++)
            for (int l = 0; l < L; l++) row[n] += x[l] * t[l * N + n];
    }
}

// y (M, N; strides ym, yn) += sum over lanes of a (M, K; strides am, ak) b (K, N; strides bn, bk)
static __attribute__((noinline)) void accumulate(
    const v* a, int M, int am, int ak, const v* b, int N, int bk, int bn, int K, float* y, int ym, int yn) {
    if (K == 1 && yn == 1) return outer(a, M, am, b, N, bn, y, ym);
    if (K == 1 && ym == 1) return outer(b, N, bn, a, M, am, y, yn);
    int m = 0;
    for (; m + 2 <= M; m += 2) {
        int n = 0;
        for (; n + 4 <= N; n += 4) {
            v s[8] = {};
            for (int k = 0; k < K; k++) {
                v x0 = a[m * am + k * ak], x1 = a[(m + 1) * am + k * ak];
                UNROLL for (int j = 0; j < 4; j++) {
                    v z = b[k * bk + (n + j) * bn];
                    s[j] += x0 * z;
                    s[4 + j] += x1 * z;
                }
            }
            v8 t = sums(s);
            UNROLL for (int j = 0; j < 4; j++) {
                y[m * ym + (n + j) * yn] += t[j];
                y[(m + 1) * ym + (n + j) * yn] += t[4 + j];
            }
        }
        for (; n < N; n++)
            for (int i = m; i < m + 2; i++) {
                v s{};
                for (int k = 0; k < K; k++) s += a[i * am + k * ak] * b[k * bk + n * bn];
                y[i * ym + n * yn] += sum(s);
            }
    }
    for (; m < M; m++)
        for (int n = 0; n < N; n++) {
            v s{};
            for (int k = 0; k < K; k++) s += a[m * am + k * ak] * b[k * bk + n * bn];
            y[m * ym + n * yn] += sum(s);
        }
}
