/* A machine without libzstd and liblz4: this dlopen is found before that of the C library. */
#include "nc_codec.h"

#include <dlfcn.h>

#include "check.h"

void *dlopen(const char *file, int mode)
{
    (void)file;
    (void)mode;
    return NULL;
}

char *dlerror(void)
{
    static char reason[] = "libzstd.so.1: cannot open shared object file";

    return reason;
}

int main(void)
{
    struct nc_codec *codec;
    struct nc_err err = {0};
    uint8_t bytes[20] = {0};
    size_t size = 7;

    CHECK(nc_codec_available() == 1u << NC_CODEC_RAW);
    CHECK_TEXT(nc_codec_version(NC_CODEC_ZSTD), "");
    CHECK_TEXT(nc_codec_missing(NC_CODEC_ZSTD), "libzstd.so.1: cannot open shared object file");
    CHECK(nc_codec_open(&codec, &err) == NC_ERR_OK);
    for (int id = NC_CODEC_LZ4; id < NC_CODEC_COUNT; id++) {
        CHECK(nc_codec_encode(codec, id, 1, bytes, 10, bytes + 10, 10, &size, &err) ==
              NC_ERR_UNAVAILABLE);
        CHECK(size == 0);
        /* The reason is kept, and told each time. */
        CHECK_TEXT(err.reason, "libzstd.so.1: cannot open shared object file");
        CHECK(nc_codec_decode(codec, id, bytes, 10, bytes + 10, 10, &err) == NC_ERR_UNAVAILABLE);
    }
    CHECK(nc_codec_encode(codec, NC_CODEC_RAW, 1, bytes, 10, bytes + 10, 10, &size, &err) ==
          NC_ERR_OK);
    CHECK(size == 10);
    nc_codec_close(codec);
    return CHECK_RESULT;
}
