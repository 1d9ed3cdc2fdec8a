/* What one core can do at most: products of bytes a second, and bytes read a second
   from memories of several sizes. Prints name and figure a line. x86-64. */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

#define TURNS 20000000L
/* Enough sums side by side to hide how long each product takes. */
#define SUMS 16

__attribute__((target("avx512f,avx512vnni"))) static double vnni(void) {
    __m512i sums[SUMS], a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(2);
#pragma GCC unroll 16
    for (int i = 0; i < SUMS; i++) sums[i] = _mm512_setzero_si512();
    double began = now();
    for (long turn = 0; turn < TURNS / 2; turn++)
#pragma GCC unroll 16
        for (int i = 0; i < SUMS; i++) {
            sums[i] = _mm512_dpbusd_epi32(sums[i], a, b);
            __asm__ volatile("" : "+v"(sums[i]));
        }
    return 64.0 * SUMS * (TURNS / 2) / (now() - began);
}

__attribute__((target("avx2"))) static double avx2(void) {
    __m256i sums[SUMS - 4], a = _mm256_set1_epi16(1), b = _mm256_set1_epi16(2);
#pragma GCC unroll 16
    for (int i = 0; i < SUMS - 4; i++) sums[i] = _mm256_setzero_si256();
    double began = now();
    for (long turn = 0; turn < TURNS / 2; turn++)
#pragma GCC unroll 16
        for (int i = 0; i < SUMS - 4; i++) {
            __m256i products = _mm256_madd_epi16(a, b);
            __asm__ volatile("" : "+x"(products));
            sums[i] = _mm256_add_epi32(sums[i], products);
            __asm__ volatile("" : "+x"(sums[i]));
        }
    return 16.0 * (SUMS - 4) * (TURNS / 2) / (now() - began);
}

__attribute__((target("avx2"))) static double reading(size_t bytes) {
    unsigned char *memory = aligned_alloc(64, bytes);
    if (!memory) exit(1);
    memset(memory, 1, bytes);
    long rounds = (long)(4e9 / bytes) + 1;
    __m256i sum[4] = {0};
    double began = now();
    for (long round = 0; round < rounds; round++)
        for (size_t at = 0; at < bytes; at += 128)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                sum[i] = _mm256_or_si256(sum[i], *(__m256i *)(memory + at + 32 * i));
                __asm__ volatile("" : "+x"(sum[i]));
            }
    double rate = (double)bytes * rounds / (now() - began);
    free(memory);
    return rate;
}

static double best(double (*of)(void)) {
    double most = 0;
    for (int i = 0; i < 5; i++) {
        double rate = of();
        if (rate > most) most = rate;
    }
    return most;
}

int main(void) {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512vnni")) printf("avx512-vnni %.4g\n", best(vnni));
    if (__builtin_cpu_supports("avx2")) printf("avx2 %.4g\n", best(avx2));
    printf("L1 %.4g\n", reading(16 << 10));
    printf("L2 %.4g\n", reading(512 << 10));
    printf("L3 %.4g\n", reading(8 << 20));
    printf("memory %.4g\n", reading(256 << 20));
    return 0;
}
