#include "nc_codec.h"

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nc_codec_abi.h"

/* log2 of NC_CODEC_MAX_CONTENT: no frame of ours needs a larger window. */
#define MAX_WINDOW_LOG 22
#define WINDOW_LOG_MIN 10

struct library {
    void *handle;
    char version[32];
    int failed; /* the default library is not looked for again with each chunk */
    struct nc_err why;
    _Atomic int loaded;
};

static struct {
    struct library library;
#define X(name, type, parameters) type(*name) parameters;
    NC_CODEC_ZSTD_SYMBOLS(X)
#undef X
} zstd;

static struct {
    struct library library;
#define X(name, type, parameters) type(*name) parameters;
    NC_CODEC_LZ4_SYMBOLS(X)
#undef X
} lz4;

struct nc_codec {
    struct ZSTD_CCtx_s *encoder;
    struct ZSTD_DCtx_s *decoder;
    void *lz4_state;
    int level; /* that the encoder is set to */
};

/* ISO C has no cast from void * to a function pointer; POSIX guarantees the representation. */
static_assert(sizeof(void *) == sizeof(void (*)(void)), "dlsym");
static_assert(NC_CODEC_MAX_CONTENT == (size_t)1 << MAX_WINDOW_LOG, "window");

static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;

/* --- zstd ------------------------------------------------------------------------------------ */

static int zstd_failed(size_t result, const char *what, size_t size, struct nc_err *err)
{
    if (zstd.ZSTD_getErrorCode(result) == NC_CODEC_ZSTD_ERROR_MEMORY_ALLOCATION)
        return nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for zstd");
    return nc_err_set(err, NC_ERR_SYSTEM, 0, "zstd failed to %s %zu bytes: %s", what, size,
                      zstd.ZSTD_getErrorName(result));
}

static int zstd_encoder(struct nc_codec *codec, int level, struct nc_err *err)
{
    size_t result;

    if (codec->encoder != NULL && codec->level == level)
        return NC_ERR_OK;
    if (codec->encoder == NULL) {
        codec->encoder = zstd.ZSTD_createCCtx();
        if (codec->encoder == NULL)
            return nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for zstd");
        /* The frame around it has a checksum of the content. */
        result = zstd.ZSTD_CCtx_setParameter(codec->encoder, NC_CODEC_ZSTD_C_CHECKSUM, 0);
        if (!zstd.ZSTD_isError(result))
            result = zstd.ZSTD_CCtx_setParameter(codec->encoder, NC_CODEC_ZSTD_C_CONTENT_SIZE, 1);
        if (!zstd.ZSTD_isError(result))
            result = zstd.ZSTD_CCtx_setParameter(codec->encoder, NC_CODEC_ZSTD_C_DICT_ID, 0);
        if (zstd.ZSTD_isError(result))
            goto fail;
    }
    result = zstd.ZSTD_CCtx_setParameter(codec->encoder, NC_CODEC_ZSTD_C_LEVEL, level);
    if (zstd.ZSTD_isError(result))
        goto fail;
    codec->level = level;
    return NC_ERR_OK;

fail:
    (void)zstd.ZSTD_freeCCtx(codec->encoder);
    codec->encoder = NULL;
    return zstd_failed(result, "be set up for", 0, err);
}

static int zstd_encode(struct nc_codec *codec, int level, const uint8_t *content, size_t size,
                       uint8_t *ret_coded, size_t capacity, size_t *ret_size, struct nc_err *err)
{
    size_t result;
    int code = zstd_encoder(codec, level, err);

    if (code != NC_ERR_OK)
        return code;
    /* It knows the size, and takes a window no larger than that: MAX_WINDOW_LOG at most. */
    result = zstd.ZSTD_compress2(codec->encoder, ret_coded, capacity, content, size);
    if (!zstd.ZSTD_isError(result))
        *ret_size = result;
    else if (zstd.ZSTD_getErrorCode(result) != NC_CODEC_ZSTD_ERROR_DST_SIZE_TOO_SMALL)
        return zstd_failed(result, "encode", size, err);
    return NC_ERR_OK;
}

/* RFC 8878, section 3.1.1.1, of the header of a frame: magic (4), descriptor (1), window (0 or 1),
 * dictionary, content size. What the library reports of it it reports without the window and
 * the dictionary. */
static int zstd_check(const uint8_t *coded, size_t coded_size, size_t size, struct nc_err *err)
{
    static const uint8_t magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
    unsigned long long declared;
    size_t frame;

    /* Also what tells a skippable frame, which has another one. */
    if (coded_size < 6 || memcmp(coded, magic, sizeof magic) != 0)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "%zu bytes are no frame of zstd", coded_size);
    declared = zstd.ZSTD_getFrameContentSize(coded, coded_size);
    if (declared == NC_CODEC_ZSTD_CONTENTSIZE_ERROR)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "the header of a frame of zstd does not hold");
    if (declared == NC_CODEC_ZSTD_CONTENTSIZE_UNKNOWN)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "a chunk of zstd declares no size");
    if (declared != size)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0,
                          "a chunk of zstd declares %llu bytes, %zu were agreed on", declared,
                          size);
    if ((coded[4] & 0x03) != 0)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "a chunk of zstd asks for a dictionary");
    if ((coded[4] & 0x20) == 0) {
        unsigned long long window = 1ULL << (WINDOW_LOG_MIN + (coded[5] >> 3));

        window += window / 8 * (coded[5] & 7);
        if (window > size)
            return nc_err_set(err, NC_ERR_INTEGRITY, 0,
                              "a chunk of zstd declares a window of %llu bytes for %zu", window,
                              size);
    }
    frame = zstd.ZSTD_findFrameCompressedSize(coded, coded_size);
    if (zstd.ZSTD_isError(frame))
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "a chunk of zstd ends early: %s",
                          zstd.ZSTD_getErrorName(frame));
    if (frame != coded_size)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "%zu bytes follow a chunk of zstd",
                          coded_size - frame);
    return NC_ERR_OK;
}

static int zstd_decode(struct nc_codec *codec, const uint8_t *coded, size_t coded_size,
                       uint8_t *ret_content, size_t size, struct nc_err *err)
{
    size_t result;
    int code = zstd_check(coded, coded_size, size, err);

    if (code != NC_ERR_OK)
        return code;
    if (codec->decoder == NULL) {
        codec->decoder = zstd.ZSTD_createDCtx();
        if (codec->decoder == NULL)
            return nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for zstd");
        result = zstd.ZSTD_DCtx_setParameter(codec->decoder, NC_CODEC_ZSTD_D_WINDOW_LOG_MAX,
                                             MAX_WINDOW_LOG);
        if (zstd.ZSTD_isError(result)) {
            (void)zstd.ZSTD_freeDCtx(codec->decoder);
            codec->decoder = NULL;
            return zstd_failed(result, "be set up for", 0, err);
        }
    }
    result = zstd.ZSTD_decompressDCtx(codec->decoder, ret_content, size, coded, coded_size);
    if (zstd.ZSTD_isError(result)) {
        if (zstd.ZSTD_getErrorCode(result) == NC_CODEC_ZSTD_ERROR_MEMORY_ALLOCATION)
            return zstd_failed(result, "decode", coded_size, err);
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "a chunk of zstd cannot be decoded: %s",
                          zstd.ZSTD_getErrorName(result));
    }
    if (result != size)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "a chunk of zstd has %zu bytes, not %zu",
                          result, size);
    return NC_ERR_OK;
}

/* --- lz4 ------------------------------------------------------------------------------------- */

static int lz4_encode(struct nc_codec *codec, int level, const uint8_t *content, size_t size,
                      uint8_t *ret_coded, size_t capacity, size_t *ret_size, struct nc_err *err)
{
    int room =
        capacity > 2 * NC_CODEC_MAX_CONTENT ? (int)(2 * NC_CODEC_MAX_CONTENT) : (int)capacity;
    int result;

    /* Its simpler call has 16 KiB of state on the stack. */
    if (codec->lz4_state == NULL) {
        codec->lz4_state = calloc(1, (size_t)lz4.LZ4_sizeofState());
        if (codec->lz4_state == NULL)
            return nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for lz4");
    }
    result = lz4.LZ4_compress_fast_extState(codec->lz4_state, (const char *)content,
                                            (char *)ret_coded, (int)size, room, level);
    *ret_size = result > 0 ? (size_t)result : 0;
    return NC_ERR_OK;
}

static int lz4_decode(const uint8_t *coded, size_t coded_size, uint8_t *ret_content, size_t size,
                      struct nc_err *err)
{
    int result;

    /* A block grows by one byte in 255: more than this is no block of so little content. */
    if (coded_size > size + size / 255 + 16)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0,
                          "a chunk of lz4, of %zu bytes, is none of %zu bytes", coded_size, size);
    result = lz4.LZ4_decompress_safe((const char *)coded, (char *)ret_content, (int)coded_size,
                                     (int)size);
    if (result < 0)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0,
                          "a chunk of lz4 is damaged, or is none of %zu bytes", size);
    if ((size_t)result != size)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "a chunk of lz4 has %d bytes, not %zu", result,
                          size);
    return NC_ERR_OK;
}

/* --- Both ------------------------------------------------------------------------------------ */

static int check_call(int id, size_t size, struct nc_err *err)
{
    if (size == 0 || size > NC_CODEC_MAX_CONTENT)
        return nc_err_set(err, NC_ERR_INVALID, 0,
                          "a codec takes 1 to %zu bytes of content, not %zu", NC_CODEC_MAX_CONTENT,
                          size);
    return nc_codec_load(id, NULL, err);
}

int nc_codec_encode(struct nc_codec *codec, int id, int level, const uint8_t *content, size_t size,
                    uint8_t *ret_coded, size_t capacity, size_t *ret_size, struct nc_err *err)
{
    int code = check_call(id, size, err);

    *ret_size = 0;
    if (code != NC_ERR_OK)
        return code;
    if (id == NC_CODEC_RAW) {
        if (size > capacity)
            return NC_ERR_OK;
        memcpy(ret_coded, content, size);
        *ret_size = size;
        return NC_ERR_OK;
    }
    if (level < (id == NC_CODEC_LZ4 ? 1 : NC_CODEC_LEVEL_MIN) || level > NC_CODEC_LEVEL_MAX)
        return nc_err_set(err, NC_ERR_INVALID, 0, "%s has no level %d",
                          id == NC_CODEC_LZ4 ? "lz4" : "zstd", level);
    return (id == NC_CODEC_LZ4 ? lz4_encode : zstd_encode)(codec, level, content, size, ret_coded,
                                                           capacity, ret_size, err);
}

int nc_codec_decode(struct nc_codec *codec, int id, const uint8_t *coded, size_t coded_size,
                    uint8_t *ret_content, size_t size, struct nc_err *err)
{
    int code = check_call(id, size, err);

    if (code != NC_ERR_OK)
        return code;
    if (id == NC_CODEC_ZSTD)
        return zstd_decode(codec, coded, coded_size, ret_content, size, err);
    if (id == NC_CODEC_LZ4)
        return lz4_decode(coded, coded_size, ret_content, size, err);
    if (coded_size != size)
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "%zu raw bytes, %zu were agreed on", coded_size,
                          size);
    memcpy(ret_content, coded, size);
    return NC_ERR_OK;
}

int nc_codec_open(struct nc_codec **ret_codec, struct nc_err *err)
{
    *ret_codec = calloc(1, sizeof **ret_codec);
    if (*ret_codec == NULL)
        return nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for a codec");
    return NC_ERR_OK;
}

void nc_codec_close(struct nc_codec *codec)
{
    if (codec == NULL)
        return;
    if (codec->encoder != NULL)
        (void)zstd.ZSTD_freeCCtx(codec->encoder);
    if (codec->decoder != NULL)
        (void)zstd.ZSTD_freeDCtx(codec->decoder);
    free(codec->lz4_state);
    free(codec);
}

size_t nc_codec_memory(const struct nc_codec *codec)
{
    return sizeof *codec + (codec->encoder != NULL ? zstd.ZSTD_sizeof_CCtx(codec->encoder) : 0) +
           (codec->decoder != NULL ? zstd.ZSTD_sizeof_DCtx(codec->decoder) : 0) +
           (codec->lz4_state != NULL ? (size_t)lz4.LZ4_sizeofState() : 0);
}

/* --- Loading --------------------------------------------------------------------------------- */

static int find(void *handle, const char *symbol, void *ret_function, struct nc_err *err)
{
    void *function = dlsym(handle, symbol);

    if (function == NULL)
        return nc_err_set(err, NC_ERR_UNAVAILABLE, 0, "the library has no %s", symbol);
    memcpy(ret_function, &function, sizeof function);
    return NC_ERR_OK;
}

static int find_zstd(struct nc_err *err)
{
    int code;

#define X(name, type, parameters)                                                                  \
    code = find(zstd.library.handle, #name, &zstd.name, err);                                      \
    if (code != NC_ERR_OK)                                                                         \
        return code;
    NC_CODEC_ZSTD_SYMBOLS(X)
#undef X
    (void)snprintf(zstd.library.version, sizeof zstd.library.version, "%s",
                   zstd.ZSTD_versionString());
    return NC_ERR_OK;
}

static int find_lz4(struct nc_err *err)
{
    int code;

#define X(name, type, parameters)                                                                  \
    code = find(lz4.library.handle, #name, &lz4.name, err);                                        \
    if (code != NC_ERR_OK)                                                                         \
        return code;
    NC_CODEC_LZ4_SYMBOLS(X)
#undef X
    (void)snprintf(lz4.library.version, sizeof lz4.library.version, "%s", lz4.LZ4_versionString());
    return NC_ERR_OK;
}

static int load_one(struct library *library, int id, const char *soname, struct nc_err *err)
{
    int code;

    library->handle = dlopen(soname, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (library->handle == NULL) {
        const char *reason = dlerror();

        return nc_err_set(err, NC_ERR_UNAVAILABLE, 0, "%s",
                          reason != NULL ? reason : "the library cannot be loaded");
    }
    code = id == NC_CODEC_ZSTD ? find_zstd(err) : find_lz4(err);
    if (code != NC_ERR_OK)
        (void)dlclose(library->handle);
    return code;
}

static struct library *library_of(int id)
{
    return id == NC_CODEC_ZSTD ? &zstd.library : id == NC_CODEC_LZ4 ? &lz4.library : NULL;
}

int nc_codec_load(int id, const char *soname, struct nc_err *err)
{
    struct library *library = library_of(id);
    int code;

    if (id == NC_CODEC_RAW)
        return NC_ERR_OK;
    if (library == NULL)
        return nc_err_set(err, NC_ERR_INVALID, 0, "there is no codec %d", id);
    if (atomic_load_explicit(&library->loaded, memory_order_acquire))
        return NC_ERR_OK;
    (void)pthread_mutex_lock(&loading);
    if (atomic_load_explicit(&library->loaded, memory_order_relaxed)) {
        code = NC_ERR_OK;
    } else if (soname != NULL) {
        code = load_one(library, id, soname, err);
    } else {
        if (!library->failed) {
            soname = id == NC_CODEC_ZSTD ? "libzstd.so.1" : "liblz4.so.1";
            library->failed = load_one(library, id, soname, &library->why) != NC_ERR_OK;
        }
        code = library->failed ? nc_err_set(err, NC_ERR_UNAVAILABLE, 0, "%s", library->why.reason)
                               : NC_ERR_OK;
    }
    if (code == NC_ERR_OK)
        atomic_store_explicit(&library->loaded, 1, memory_order_release);
    (void)pthread_mutex_unlock(&loading);
    return code;
}

unsigned nc_codec_available(void)
{
    unsigned available = 1u << NC_CODEC_RAW;

    for (int id = NC_CODEC_LZ4; id < NC_CODEC_COUNT; id++) {
        if (nc_codec_load(id, NULL, NULL) == NC_ERR_OK)
            available |= 1u << id;
    }
    return available;
}

const char *nc_codec_version(int id)
{
    struct library *library = library_of(id);

    return library != NULL && nc_codec_load(id, NULL, NULL) == NC_ERR_OK ? library->version : "";
}

const char *nc_codec_missing(int id)
{
    struct library *library = library_of(id);

    /* Why is not written again: the default library is looked for once. */
    return library == NULL || nc_codec_load(id, NULL, NULL) == NC_ERR_OK ? "" : library->why.reason;
}
