/* Threads that all make the first call at once; the build under TSan is what this is for. */
#include <pthread.h>
#include <stdlib.h>

#include "check.h"
#include "nc_cdc.h"
#include "nc_codec.h"
#include "nc_crc.h"
#include "nc_crypto.h"
#include "nc_err.h"

#define THREADS 8

struct result {
    int code;
    uint32_t checksum;
    const char *kernel;
    unsigned codecs;
    size_t cut;
    size_t coded;
    uint8_t tag[NC_CRYPTO_TAG_BYTES];
    char version[64];
};

static pthread_barrier_t start;

static void *first_call(void *argument)
{
    static const uint8_t iv[NC_CRYPTO_NONCE_BYTES];
    struct result *result = argument;
    static const struct nc_cdc cdc = {64, 256, 4000};
    struct nc_codec *codec = NULL;
    struct nc_aead *aead = NULL;
    struct nc_err err = {0};
    uint8_t key[NC_CRYPTO_KEY_BYTES];
    uint8_t byte = 1;
    uint8_t zeros[4000] = {0};
    uint8_t coded[4000];

    (void)pthread_barrier_wait(&start);
    result->checksum = nc_crc32(0, "123456789", 9);
    result->kernel = nc_crc32_kernel();
    result->codecs = nc_codec_available();
    result->cut = nc_cdc_cut(&cdc, zeros, sizeof zeros, false);
    if (nc_codec_open(&codec, &err) == NC_ERR_OK)
        (void)nc_codec_encode(codec, NC_CODEC_ZSTD, 1, zeros, sizeof zeros, coded, sizeof coded,
                              &result->coded, &err);
    nc_codec_close(codec);
    memset(key, 3, sizeof key);
    result->code = nc_crypto_load(NULL, &err);
    if (result->code == NC_ERR_OK)
        result->code = nc_hkdf_expand(key, "info", 4, key, sizeof key, &err);
    if (result->code == NC_ERR_OK)
        result->code = nc_aead_open(key, iv, 1, &aead, &err);
    if (result->code == NC_ERR_OK)
        result->code = nc_aead_seal(aead, 5, "aad", 3, &byte, 1, &byte, result->tag, &err);
    nc_aead_close(aead);
    (void)snprintf(result->version, sizeof result->version, "%s", nc_crypto_version());
    return NULL;
}

int main(void)
{
    static struct result results[THREADS];
    pthread_t threads[THREADS];

    CHECK(pthread_barrier_init(&start, NULL, THREADS) == 0);
    for (size_t i = 0; i < THREADS; i++) {
        if (pthread_create(&threads[i], NULL, first_call, &results[i]) != 0)
            abort();
    }
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    for (size_t i = 0; i < THREADS; i++) {
        CHECK(results[i].code == NC_ERR_OK);
        CHECK(results[i].checksum == 0xcbf43926u);
        CHECK(results[i].codecs == results[0].codecs);
        CHECK(results[i].cut == 4000);
        CHECK(results[i].coded == results[0].coded);
        CHECK(results[i].kernel == results[0].kernel);
        CHECK(memcmp(results[i].tag, results[0].tag, sizeof results[i].tag) == 0);
        CHECK(results[i].version[0] != '\0');
        CHECK_TEXT(results[i].version, results[0].version);
    }
    CHECK(pthread_barrier_destroy(&start) == 0);
    return CHECK_RESULT;
}
