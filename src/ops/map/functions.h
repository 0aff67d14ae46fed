// The vocabulary of elementwise functions: what a map() body may use besides + - * /. Each executor brings the same names for
// its own vector type, found by argument-dependent lookup; these are the ones for double, which is also the meaning.
#pragma once
#include <cmath>

namespace supersonic {

inline double select(double condition, double yes, double no) { return condition != 0 ? yes : no; }
inline double less(double a, double b) { return a < b ? 1.0 : 0.0; }
inline double equal(double a, double b) { return a == b ? 1.0 : 0.0; }
inline double vmax(double a, double b) { return a > b ? a : b; }
inline double vmin(double a, double b) { return a < b ? a : b; }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
using std::exp;
using std::log;
using std::sqrt;
using std::sin;
using std::cos;
using std::tanh;

}  // namespace supersonic
