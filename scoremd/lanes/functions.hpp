// What programs of many molecules and of one have in common; goes after kernels.hpp or single.hpp, which say what v is.

static inline v square(v x) { return x * x; }

// 2^n e^r with |r| <= ln(2) / 2, e^r by its polynomial of least error (Cephes, S. Moshier)
static inline v exponential(v x) {
    x = x < -87.0f ? v{} - 87.0f : x;
    x = x > 88.0f ? v{} + 88.0f : x;
    v n = nearest(x * 1.44269504f);
    v r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    v p = 1.9875691500e-4f * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * power_of_two(n);
}

static inline v sigmoid(v x) { return 1.0f / (1.0f + exponential(-x)); }

static inline v tangent(v x) { return 1.0f - 2.0f / (1.0f + exponential(2.0f * x)); }

