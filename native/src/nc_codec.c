#include "nc_codec.h"

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nc_codec_abi.h"
#include "nc_err.h"

/* 4 MiB, the largest chunk: a longer window is of no use, and asks the receiver for memory. */
#define WINDOW_LOG 22
#define MAX_CONTENT ((size_t)1 << WINDOW_LOG)

struct library {
    void *library;
    char missing[160];
};

/* Never freed: contexts of other threads may point to it. */
static struct {
    struct library zstd_library;
    struct library lz4_library;
#define X(name, type, parameters) type(*name) parameters;
    NC_CODEC_ZSTD_SYMBOLS(X)
    NC_CODEC_LZ4_SYMBOLS(X)
#undef X
} libraries;
static pthread_once_t once = PTHREAD_ONCE_INIT;

struct nc_codec {
    struct ZSTD_CCtx_s *encoder;
    struct ZSTD_DCtx_s *decoder;
    void *lz4_state;
    int level; /* that the encoder is set to */
};

/* ISO C has no cast from void * to a function pointer; POSIX guarantees the representation. */
static_assert(sizeof(void *) == sizeof(void (*)(void)), "dlsym");

static bool open_library(struct library *library, const char *name)
{
    library->library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library->library == NULL) {
        const char *why = dlerror();

        (void)snprintf(library->missing, sizeof library->missing, "%s",
                       why != NULL ? why : "it cannot be loaded");
    }
    return library->library != NULL;
}

static void find(struct library *library, const char *name, void *ret_function)
{
    void *symbol = library->library != NULL ? dlsym(library->library, name) : NULL;

    memcpy(ret_function, &symbol, sizeof symbol);
    if (symbol == NULL && library->library != NULL) {
        (void)snprintf(library->missing, sizeof library->missing,
                       "the library is too old: it has no %s", name);
        (void)dlclose(library->library);
        library->library = NULL;
    }
}

static void load(void)
{
    if (open_library(&libraries.zstd_library, "libzstd.so.1")) {
#define X(name, type, parameters) find(&libraries.zstd_library, #name, &libraries.name);
        NC_CODEC_ZSTD_SYMBOLS(X)
#undef X
    }
    if (open_library(&libraries.lz4_library, "liblz4.so.1")) {
#define X(name, type, parameters) find(&libraries.lz4_library, #name, &libraries.name);
        NC_CODEC_LZ4_SYMBOLS(X)
#undef X
    }
}

static const struct library *library_of(int id)
{
    (void)pthread_once(&once, load);
    return id == NC_CODEC_ZSTD  ? &libraries.zstd_library
           : id == NC_CODEC_LZ4 ? &libraries.lz4_library
                                : NULL;
}

unsigned nc_codec_available(void)
{
    unsigned available = 1u << NC_CODEC_RAW;

    for (int id = NC_CODEC_RAW + 1; id < NC_CODEC_COUNT; id++)
        available |= library_of(id)->library != NULL ? 1u << id : 0;
    return available;
}

const char *nc_codec_version(int id)
{
    const struct library *library = library_of(id);

    if (library == NULL || library->library == NULL)
        return "";
    return id == NC_CODEC_ZSTD ? libraries.ZSTD_versionString() : libraries.LZ4_versionString();
}

const char *nc_codec_missing(int id)
{
    const struct library *library = library_of(id);

    return library == NULL || library->library != NULL ? "" : library->missing;
}

int nc_codec_open(struct nc_codec **ret_codec, struct nc_err *err)
{
    *ret_codec = calloc(1, sizeof **ret_codec);
    if (*ret_codec == NULL)
        return nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for a codec");
    (*ret_codec)->level = INT_MIN;
    return NC_ERR_OK;
}

void nc_codec_close(struct nc_codec *codec)
{
    if (codec == NULL)
        return;
    if (codec->encoder != NULL)
        (void)libraries.ZSTD_freeCCtx(codec->encoder);
    if (codec->decoder != NULL)
        (void)libraries.ZSTD_freeDCtx(codec->decoder);
    free(codec->lz4_state);
    free(codec);
}

static int unavailable(int id, struct nc_err *err)
{
    const struct library *library = library_of(id);

    if (library == NULL)
        return nc_err_set(err, NC_ERR_INVALID, 0, "codec %d", id);
    return nc_err_set(err, NC_ERR_UNAVAILABLE, 0, "%s cannot be used: %s",
                      id == NC_CODEC_ZSTD ? "libzstd" : "liblz4", library->missing);
}

static bool usable(int id)
{
    const struct library *library = library_of(id);

    return library != NULL && library->library != NULL;
}

/* --- zstd --- */

static int prepare_encoder(struct nc_codec *codec, int level, struct nc_err *err)
{
    if (codec->encoder == NULL) {
        codec->encoder = libraries.ZSTD_createCCtx();
        if (codec->encoder == NULL)
            return nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for zstd");
        (void)libraries.ZSTD_CCtx_setParameter(codec->encoder, NC_ZSTD_C_CONTENT_SIZE, 1);
        (void)libraries.ZSTD_CCtx_setParameter(codec->encoder, NC_ZSTD_C_CHECKSUM, 0);
        (void)libraries.ZSTD_CCtx_setParameter(codec->encoder, NC_ZSTD_C_DICTIONARY_ID, 0);
        (void)libraries.ZSTD_CCtx_setParameter(codec->encoder, NC_ZSTD_C_WINDOW_LOG, WINDOW_LOG);
    }
    if (codec->level == level)
        return NC_ERR_OK;
    if (libraries.ZSTD_isError(
            libraries.ZSTD_CCtx_setParameter(codec->encoder, NC_ZSTD_C_LEVEL, level)) != 0)
        return nc_err_set(err, NC_ERR_INVALID, 0, "level %d", level);
    codec->level = level;
    return NC_ERR_OK;
}

static int zstd_encode(struct nc_codec *codec, int level, const uint8_t *content, size_t size,
                       uint8_t *ret_coded, size_t capacity, size_t *ret_size, struct nc_err *err)
{
    int code = prepare_encoder(codec, level, err);
    size_t made;

    if (code != NC_ERR_OK)
        return code;
    made = libraries.ZSTD_compress2(codec->encoder, ret_coded, capacity, content, size);
    if (libraries.ZSTD_isError(made) == 0) {
        *ret_size = made;
        return NC_ERR_OK;
    }
    switch (libraries.ZSTD_getErrorCode(made)) {
    case NC_ZSTD_ERROR_TOO_SMALL:
        return NC_ERR_OK;
    case NC_ZSTD_ERROR_MEMORY:
        return nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for zstd");
    default:
        return nc_err_set(err, NC_ERR_SYSTEM, 0, "zstd: %s", libraries.ZSTD_getErrorName(made));
    }
}

/* RFC 8878, 3.1.1.1: the byte behind the magic. Bit 3 is reserved, bits 0 and 1 are the size of a
 * dictionary's id. */
static bool names_a_dictionary(const uint8_t *coded, size_t coded_size)
{
    return coded_size > 4 && (coded[4] & 3) != 0;
}

static int zstd_decode(struct nc_codec *codec, const uint8_t *coded, size_t coded_size,
                       uint8_t *ret_content, size_t size, struct nc_err *err)
{
    /* A skippable frame is one of a declared size of 0. */
    unsigned long long declared = libraries.ZSTD_getFrameContentSize(coded, coded_size);
    size_t whole;
    size_t made;

    if (declared == NC_ZSTD_SIZE_ERROR)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "a chunk that is no frame of zstd");
    if (declared == NC_ZSTD_SIZE_UNKNOWN)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "a chunk of zstd declares no size");
    if (declared != size)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0,
                          "a chunk of zstd declares %llu bytes, %zu were agreed on", declared,
                          size);
    if (names_a_dictionary(coded, coded_size))
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "a chunk of zstd asks for a dictionary");
    whole = libraries.ZSTD_findFrameCompressedSize(coded, coded_size);
    if (libraries.ZSTD_isError(whole) != 0)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "a chunk of zstd ends early");
    if (whole != coded_size)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "%zu bytes follow a chunk of zstd",
                          coded_size - whole);
    if (codec->decoder == NULL) {
        codec->decoder = libraries.ZSTD_createDCtx();
        if (codec->decoder == NULL)
            return nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for zstd");
        (void)libraries.ZSTD_DCtx_setParameter(codec->decoder, NC_ZSTD_D_WINDOW_LOG_MAX,
                                               WINDOW_LOG);
    }
    made = libraries.ZSTD_decompressDCtx(codec->decoder, ret_content, size, coded, coded_size);
    if (libraries.ZSTD_isError(made) != 0)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "a chunk of zstd cannot be decoded: %s",
                          libraries.ZSTD_getErrorName(made));
    if (made != size)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "a chunk of zstd has %zu bytes, not %zu", made,
                          size);
    return NC_ERR_OK;
}

/* --- lz4 --- */

static int lz4_encode(struct nc_codec *codec, int level, const uint8_t *content, size_t size,
                      uint8_t *ret_coded, size_t capacity, size_t *ret_size, struct nc_err *err)
{
    int made;

    if (level < 1)
        return nc_err_set(err, NC_ERR_INVALID, 0, "acceleration %d", level);
    if (codec->lz4_state == NULL) {
        codec->lz4_state = calloc(1, (size_t)libraries.LZ4_sizeofState());
        if (codec->lz4_state == NULL)
            return nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for lz4");
    }
    made = libraries.LZ4_compress_fast_extState(codec->lz4_state, (const char *)content,
                                                (char *)ret_coded, (int)size, (int)capacity, level);
    *ret_size = made > 0 ? (size_t)made : 0;
    return NC_ERR_OK;
}

static int lz4_decode(const uint8_t *coded, size_t coded_size, uint8_t *ret_content, size_t size,
                      struct nc_err *err)
{
    int made = libraries.LZ4_decompress_safe((const char *)coded, (char *)ret_content,
                                             (int)coded_size, (int)size);

    if (made < 0)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0,
                          "a chunk of lz4 is damaged, or has more than the %zu bytes agreed on",
                          size);
    if ((size_t)made != size)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "a chunk of lz4 has %d bytes, not %zu", made,
                          size);
    return NC_ERR_OK;
}

/* --- Either --- */

static int check_sizes(size_t size, size_t coded, struct nc_err *err)
{
    if (size > MAX_CONTENT || coded > INT_MAX)
        return nc_err_set(err, NC_ERR_INVALID, 0, "%zu bytes, coded %zu: a chunk has at most %zu",
                          size, coded, MAX_CONTENT);
    return NC_ERR_OK;
}

int nc_codec_encode(struct nc_codec *codec, int id, int level, const uint8_t *content, size_t size,
                    uint8_t *ret_coded, size_t capacity, size_t *ret_size, struct nc_err *err)
{
    int code = check_sizes(size, capacity, err);

    *ret_size = 0;
    if (code != NC_ERR_OK)
        return code;
    if (level < NC_CODEC_LEVEL_MIN || level > NC_CODEC_LEVEL_MAX)
        return nc_err_set(err, NC_ERR_INVALID, 0, "level %d, not %d to %d", level,
                          NC_CODEC_LEVEL_MIN, NC_CODEC_LEVEL_MAX);
    if (!usable(id))
        return unavailable(id, err);
    if (id == NC_CODEC_ZSTD)
        return zstd_encode(codec, level, content, size, ret_coded, capacity, ret_size, err);
    return lz4_encode(codec, level, content, size, ret_coded, capacity, ret_size, err);
}

int nc_codec_decode(struct nc_codec *codec, int id, const uint8_t *coded, size_t coded_size,
                    uint8_t *ret_content, size_t size, struct nc_err *err)
{
    int code = check_sizes(size, coded_size, err);

    if (code != NC_ERR_OK)
        return code;
    if (!usable(id))
        return unavailable(id, err);
    if (id == NC_CODEC_ZSTD)
        return zstd_decode(codec, coded, coded_size, ret_content, size, err);
    return lz4_decode(coded, coded_size, ret_content, size, err);
}
