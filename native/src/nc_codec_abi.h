/* The part of libzstd's and liblz4's interfaces this extension uses, declared here, so that neither
 * headers nor libraries are needed to build. Only functions of the stable API (zstd 1.4.0, lz4
 * 1.8.0 and later). Where the headers are there, native/tests/test_codec_abi.c holds these
 * declarations against them. Private to nc_codec.c and its tests. */
#ifndef NC_CODEC_ABI_H
#define NC_CODEC_ABI_H

#include <stddef.h>

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

/* X(name, return type, parameters): makes the table of pointers and the loader. Enums are passed
 * as the integers they are. */
#define NC_CODEC_ZSTD_SYMBOLS(X)                                                                   \
    X(ZSTD_versionString, const char *, (void))                                                    \
    X(ZSTD_isError, unsigned, (size_t code))                                                       \
    X(ZSTD_getErrorCode, unsigned, (size_t code))                                                  \
    X(ZSTD_getErrorName, const char *, (size_t code))                                              \
    X(ZSTD_createCCtx, struct ZSTD_CCtx_s *, (void))                                               \
    X(ZSTD_freeCCtx, size_t, (struct ZSTD_CCtx_s * context))                                       \
    X(ZSTD_sizeof_CCtx, size_t, (const struct ZSTD_CCtx_s *context))                               \
    X(ZSTD_CCtx_setParameter, size_t, (struct ZSTD_CCtx_s * context, unsigned name, int value))    \
    X(ZSTD_compress2, size_t,                                                                      \
      (struct ZSTD_CCtx_s * context, void *out, size_t capacity, const void *in, size_t size))     \
    X(ZSTD_createDCtx, struct ZSTD_DCtx_s *, (void))                                               \
    X(ZSTD_freeDCtx, size_t, (struct ZSTD_DCtx_s * context))                                       \
    X(ZSTD_sizeof_DCtx, size_t, (const struct ZSTD_DCtx_s *context))                               \
    X(ZSTD_DCtx_setParameter, size_t, (struct ZSTD_DCtx_s * context, unsigned name, int value))    \
    X(ZSTD_decompressDCtx, size_t,                                                                 \
      (struct ZSTD_DCtx_s * context, void *out, size_t capacity, const void *in, size_t size))     \
    X(ZSTD_getFrameContentSize, unsigned long long, (const void *in, size_t size))                 \
    X(ZSTD_findFrameCompressedSize, size_t, (const void *in, size_t size))

#define NC_CODEC_LZ4_SYMBOLS(X)                                                                    \
    X(LZ4_versionString, const char *, (void))                                                     \
    X(LZ4_sizeofState, int, (void))                                                                \
    X(LZ4_compress_fast_extState, int,                                                             \
      (void *state, const char *in, char *out, int size, int capacity, int acceleration))          \
    X(LZ4_decompress_safe, int, (const char *in, char *out, int size, int capacity))

/* Values of enums and macros, which no symbol carries. */
#define NC_CODEC_ZSTD_C_LEVEL 100
#define NC_CODEC_ZSTD_C_CONTENT_SIZE 200
#define NC_CODEC_ZSTD_C_CHECKSUM 201
#define NC_CODEC_ZSTD_C_DICT_ID 202
#define NC_CODEC_ZSTD_D_WINDOW_LOG_MAX 100
#define NC_CODEC_ZSTD_CONTENTSIZE_UNKNOWN (0ULL - 1)
#define NC_CODEC_ZSTD_CONTENTSIZE_ERROR (0ULL - 2)
#define NC_CODEC_ZSTD_ERROR_MEMORY_ALLOCATION 64
#define NC_CODEC_ZSTD_ERROR_DST_SIZE_TOO_SMALL 70

#endif
