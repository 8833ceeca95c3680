/* SPDX-License-Identifier: MIT
 * names.glsl - the functions of math.glsl under their names in C, for what users write. */
#define sqrt m_sqrt
#define fabs m_fabs
#define floor m_floor
#define exp m_exp
#define expm1 m_expm1
#define log m_log
#define log1p m_log1p
#define sin m_sin
#define cos m_cos
#define tanh m_tanh
#define erf m_erf
#define pow m_pow
