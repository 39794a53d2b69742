// Successive over-relaxation (SOR), and conjugate gradients preconditioned by its symmetric form
// (SSOR), on matrices in compressed sparse rows, float64. Rows are relaxed in the order given.
// Twin: sharpen/problems/solvers/relaxation.py.

#include <cmath>
#include <cstdint>
#include <vector>

namespace {

struct Matrix {
    int64_t n;
    const int64_t* starts;   // [n + 1]
    const int64_t* columns;  // [starts[n]]
    const double* values;    // [starts[n]]
    const double* diagonal;  // [n]
};

double row_product(const Matrix& a, int64_t i, const double* x) {
    double sum = 0.0;
    for (int64_t k = a.starts[i]; k < a.starts[i + 1]; ++k) sum += a.values[k] * x[a.columns[k]];
    return sum;
}

double residual_norm(const Matrix& a, const double* b, const double* x) {
    double sum = 0.0;
    for (int64_t i = 0; i < a.n; ++i) {
        const double r = b[i] - row_product(a, i, x);
        sum += r * r;
    }
    return std::sqrt(sum);
}

double dot(int64_t n, const double* x, const double* y) {
    double sum = 0.0;
    for (int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
    return sum;
}

// z = M^-1 r with M = (D + wL) D^-1 (D + wL)^T / (w (2 - w)); lower rows by their place in order.
void precondition(const Matrix& a, const int64_t* order, const int64_t* place, double w,
                  const double* r, double* z) {
    for (int64_t p = 0; p < a.n; ++p) {
        const int64_t i = order[p];
        double sum = 0.0;
        for (int64_t k = a.starts[i]; k < a.starts[i + 1]; ++k)
            if (place[a.columns[k]] < p) sum += a.values[k] * z[a.columns[k]];
        z[i] = (r[i] - w * sum) / a.diagonal[i];
    }
    for (int64_t p = a.n - 1; p >= 0; --p) {  // (D + wU) z = D y, in place
        const int64_t i = order[p];
        double sum = 0.0;
        for (int64_t k = a.starts[i]; k < a.starts[i + 1]; ++k)
            if (place[a.columns[k]] > p) sum += a.values[k] * z[a.columns[k]];
        z[i] -= w * sum / a.diagonal[i];
    }
    for (int64_t i = 0; i < a.n; ++i) z[i] *= w * (2.0 - w);
}

}  // namespace

extern "C" {

// x [n] in and out; iterations and ratio of the last residual to the first come back. A residual
// that is not finite ends it.
void sor(int64_t n, const int64_t* starts, const int64_t* columns, const double* values,
         const double* diagonal, const int64_t* order, const double* b, double* x, double omega,
         double tolerance, int64_t most, int64_t* iterations, double* ratio) {
    const Matrix a{n, starts, columns, values, diagonal};
    const double first = residual_norm(a, b, x);
    *iterations = 0;
    *ratio = first > 0.0 ? 1.0 : 0.0;
    while (*iterations < most && *ratio >= tolerance) {
        for (int64_t p = 0; p < n; ++p) {
            const int64_t i = order[p];
            x[i] += omega * (b[i] - row_product(a, i, x)) / diagonal[i];
        }
        ++*iterations;
        *ratio = residual_norm(a, b, x) / first;
        if (!std::isfinite(*ratio)) return;
    }
}

// As above; a matrix that is not positive definite ends it with a ratio that is NaN.
void ssor_cg(int64_t n, const int64_t* starts, const int64_t* columns, const double* values,
             const double* diagonal, const int64_t* order, const double* b, double* x, double omega,
             double tolerance, int64_t most, int64_t* iterations, double* ratio) {
    const Matrix a{n, starts, columns, values, diagonal};
    std::vector<int64_t> place(n);
    for (int64_t p = 0; p < n; ++p) place[order[p]] = p;
    std::vector<double> r(n), z(n), d(n), q(n);
    for (int64_t i = 0; i < n; ++i) r[i] = b[i] - row_product(a, i, x);
    const double first = std::sqrt(dot(n, r.data(), r.data()));
    *iterations = 0;
    *ratio = first > 0.0 ? 1.0 : 0.0;
    double energy = 0.0;
    while (*iterations < most && *ratio >= tolerance) {
        precondition(a, order, place.data(), omega, r.data(), z.data());
        const double next = dot(n, r.data(), z.data());
        const double beta = *iterations ? next / energy : 0.0;
        energy = next;
        for (int64_t i = 0; i < n; ++i) d[i] = z[i] + beta * d[i];
        for (int64_t i = 0; i < n; ++i) q[i] = row_product(a, i, d.data());
        const double curvature = dot(n, d.data(), q.data());
        ++*iterations;
        if (!(curvature > 0.0) || !(energy > 0.0)) {
            *ratio = std::nan("");
            return;
        }
        const double alpha = energy / curvature;
        for (int64_t i = 0; i < n; ++i) x[i] += alpha * d[i];
        for (int64_t i = 0; i < n; ++i) r[i] -= alpha * q[i];
        // The recursive residual drifts from b - Ax, so the true one decides.
        *ratio = residual_norm(a, b, x) / first;
    }
}

}
