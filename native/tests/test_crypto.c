#include "nc_crypto.h"

#include <limits.h>
#include <stdlib.h>

#include "check.h"
#include "nc_err.h"

/* Set by the Makefile to libraries that stand in for libcrypto. */
#define FAKE BUILD_DIRECTORY "/libfake_crypto.so"
#define INCOMPLETE BUILD_DIRECTORY "/libincomplete_crypto.so"

static const uint8_t key[NC_CRYPTO_KEY_BYTES] = {1, 2, 3};
static const uint8_t iv[NC_CRYPTO_NONCE_BYTES] = {9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 255, 254};

static void refused(const char *soname, const char *fault, const char *reason)
{
    struct nc_err err = {0};

    CHECK(setenv("FAKE_CRYPTO", fault, 1) == 0);
    CHECK(nc_crypto_load(soname, &err) == NC_ERR_UNAVAILABLE);
    CHECK(err.code == NC_ERR_UNAVAILABLE);
    if (strstr(err.reason, reason) == NULL)
        CHECK_TEXT(err.reason, reason);
    CHECK_TEXT(nc_crypto_version(), "");
}

/* Comes first: once a library was taken, the others are not looked at. */
static void a_library_that_is_not_there_or_computes_wrongly_is_unavailable(void)
{
    refused("libnonesuch.so.9", "", "libnonesuch.so.9");
    refused(INCOMPLETE, "", "libcrypto has no HMAC");
    refused(FAKE, "cipher", "AES-256-GCM of Fake 1.0 computes wrongly");
    refused(FAKE, "tag", "AES-256-GCM of Fake 1.0 computes wrongly");
    refused(FAKE, "nocontext", "AES-256-GCM of Fake 1.0 computes wrongly");
    refused(FAKE, "nokey", "AES-256-GCM of Fake 1.0 computes wrongly");
    refused(FAKE, "hash", "HMAC-SHA256 of Fake 1.0 computes wrongly");
}

static void after_a_failure_another_library_may_be_tried_and_then_it_stays(void)
{
    struct nc_err err = {0};

    CHECK(setenv("FAKE_CRYPTO", "", 1) == 0);
    CHECK(nc_crypto_load(FAKE, &err) == NC_ERR_OK);
    CHECK_TEXT(nc_crypto_version(), "Fake 1.0");
    CHECK(nc_crypto_load("libnonesuch.so.9", &err) == NC_ERR_OK);
    CHECK_TEXT(nc_crypto_version(), "Fake 1.0");
}

static void what_is_sealed_opens_in_place_and_elsewhere(void)
{
    struct nc_err err = {0};
    struct nc_aead *sealer;
    struct nc_aead *opener;
    uint8_t clear[1000];
    uint8_t bytes[1000];
    uint8_t elsewhere[1000];
    uint8_t tag[NC_CRYPTO_TAG_BYTES];

    for (size_t i = 0; i < sizeof clear; i++)
        clear[i] = (uint8_t)(i * 31);
    CHECK(nc_aead_open(key, iv, 1, &sealer, &err) == NC_ERR_OK);
    CHECK(nc_aead_open(key, iv, 0, &opener, &err) == NC_ERR_OK);
    for (uint64_t sequence = 0; sequence < 200; sequence++) {
        size_t size = (size_t)sequence * 5;

        CHECK(nc_aead_seal(sealer, sequence, "header", 6, clear, size, elsewhere, tag, &err) ==
              NC_ERR_OK);
        memcpy(bytes, clear, size);
        CHECK(nc_aead_seal(sealer, sequence, "header", 6, bytes, size, bytes, tag, &err) ==
              NC_ERR_OK);
        CHECK(memcmp(bytes, elsewhere, size) == 0);
        CHECK(nc_aead_unseal(opener, sequence, "header", 6, bytes, size, bytes, tag, &err) ==
              NC_ERR_OK);
        CHECK(memcmp(bytes, clear, size) == 0);
    }
    nc_aead_close(sealer);
    nc_aead_close(opener);
    nc_aead_close(NULL);
}

static void whatever_is_changed_is_noticed_and_leaves_nothing_behind(void)
{
    static const uint8_t zeros[64];
    struct nc_err err = {0};
    struct nc_aead *sealer;
    struct nc_aead *opener;
    uint8_t clear[64];
    uint8_t sealed[64];
    uint8_t out[64];
    uint8_t tag[NC_CRYPTO_TAG_BYTES];

    memset(clear, 0x55, sizeof clear);
    CHECK(nc_aead_open(key, iv, 1, &sealer, &err) == NC_ERR_OK);
    CHECK(nc_aead_open(key, iv, 0, &opener, &err) == NC_ERR_OK);
    CHECK(nc_aead_seal(sealer, 7, "header", 6, clear, 64, sealed, tag, &err) == NC_ERR_OK);
    for (size_t bit = 0; bit < 8 * sizeof sealed; bit++) {
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(nc_aead_unseal(opener, 7, "header", 6, sealed, 64, out, tag, &err) ==
              NC_ERR_INTEGRITY);
        CHECK(memcmp(out, zeros, sizeof out) == 0);
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t bit = 0; bit < 8 * sizeof tag; bit++) {
        tag[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(nc_aead_unseal(opener, 7, "header", 6, sealed, 64, out, tag, &err) ==
              NC_ERR_INTEGRITY);
        tag[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    CHECK(nc_aead_unseal(opener, 8, "header", 6, sealed, 64, out, tag, &err) == NC_ERR_INTEGRITY);
    CHECK_TEXT(err.reason, "the tag of sequence 8 does not hold");
    CHECK(nc_aead_unseal(opener, UINT64_C(7) << 32, "header", 6, sealed, 64, out, tag, &err) ==
          NC_ERR_INTEGRITY);
    CHECK(nc_aead_unseal(opener, 7, "Header", 6, sealed, 64, out, tag, &err) == NC_ERR_INTEGRITY);
    CHECK(nc_aead_unseal(opener, 7, "header", 5, sealed, 64, out, tag, &err) == NC_ERR_INTEGRITY);
    CHECK(nc_aead_unseal(opener, 7, "header", 6, sealed, 63, out, tag, &err) == NC_ERR_INTEGRITY);
    /* A failure does not spoil the cipher for the frame after it. */
    CHECK(nc_aead_unseal(opener, 7, "header", 6, sealed, 64, out, tag, &err) == NC_ERR_OK);
    CHECK(memcmp(out, clear, sizeof out) == 0);
    nc_aead_close(sealer);
    nc_aead_close(opener);
}

static void nothing_at_all_has_a_tag_too(void)
{
    struct nc_err err = {0};
    struct nc_aead *sealer;
    struct nc_aead *opener;
    uint8_t tag[NC_CRYPTO_TAG_BYTES];

    CHECK(nc_aead_open(key, iv, 1, &sealer, &err) == NC_ERR_OK);
    CHECK(nc_aead_open(key, iv, 0, &opener, &err) == NC_ERR_OK);
    CHECK(nc_aead_seal(sealer, 0, "hello", 5, NULL, 0, NULL, tag, &err) == NC_ERR_OK);
    CHECK(nc_aead_unseal(opener, 0, "hello", 5, NULL, 0, NULL, tag, &err) == NC_ERR_OK);
    CHECK(nc_aead_unseal(opener, 0, NULL, 0, NULL, 0, NULL, tag, &err) == NC_ERR_INTEGRITY);
    CHECK(nc_aead_seal(sealer, 1, NULL, 0, NULL, 0, NULL, tag, &err) == NC_ERR_OK);
    CHECK(nc_aead_unseal(opener, 1, NULL, 0, NULL, 0, NULL, tag, &err) == NC_ERR_OK);
    nc_aead_close(sealer);
    nc_aead_close(opener);
}

static void misuse_is_refused_before_anything_is_touched(void)
{
    struct nc_err err = {0};
    struct nc_aead *sealer;
    uint8_t byte = 1;
    uint8_t tag[NC_CRYPTO_TAG_BYTES];
    uint8_t prk[NC_CRYPTO_HASH_BYTES] = {0};
    uint8_t info[257] = {0};
    uint8_t out[8];
    const size_t over = (size_t)INT_MAX + 1;

    CHECK(nc_aead_open(key, iv, 1, &sealer, &err) == NC_ERR_OK);
    CHECK(nc_aead_unseal(sealer, 0, NULL, 0, &byte, 1, &byte, tag, &err) == NC_ERR_INVALID);
    CHECK(nc_aead_seal(sealer, 0, NULL, 0, &byte, over, &byte, tag, &err) == NC_ERR_INVALID);
    CHECK(nc_aead_seal(sealer, 0, &byte, over, &byte, 1, &byte, tag, &err) == NC_ERR_INVALID);
    CHECK(byte == 1);
    nc_aead_close(sealer);
    CHECK(nc_hkdf_expand(prk, info, sizeof info, out, sizeof out, &err) == NC_ERR_INVALID);
    CHECK(nc_hkdf_expand(prk, info, 1, out, 255 * 32 + 1, &err) == NC_ERR_INVALID);
    CHECK(nc_hkdf_extract(&byte, over, &byte, 1, prk, &err) == NC_ERR_INVALID);
    CHECK(nc_hkdf_extract(&byte, 1, &byte, over, prk, &err) == NC_ERR_INVALID);
}

/* RFC 5869, appendix A.2: more than one block, and A.3: no salt, no info. */
static void hkdf_gives_the_answers_of_its_rfc(void)
{
    static const uint8_t bare[42] = {
        0x8d, 0xa4, 0xe7, 0x75, 0xa5, 0x63, 0xc1, 0x8f, 0x71, 0x5f, 0x80, 0x2a, 0x06, 0x3c,
        0x5a, 0x31, 0xb8, 0xa1, 0x1f, 0x5c, 0x5e, 0xe1, 0x87, 0x9e, 0xc3, 0x45, 0x4e, 0x5f,
        0x3c, 0x73, 0x8d, 0x2d, 0x9d, 0x20, 0x13, 0x95, 0xfa, 0xa4, 0xb6, 0x1a, 0x96, 0xc8,
    };
    struct nc_err err = {0};
    uint8_t prk[NC_CRYPTO_HASH_BYTES];
    uint8_t ramp[256];
    uint8_t made[82];

    for (size_t i = 0; i < sizeof ramp; i++)
        ramp[i] = (uint8_t)i;
    CHECK(nc_hkdf_extract(ramp + 0x60, 80, ramp, 80, prk, &err) == NC_ERR_OK);
    CHECK(nc_hkdf_expand(prk, ramp + 0xb0, 80, made, 82, &err) == NC_ERR_OK);
    CHECK(made[0] == 0xb1 && made[1] == 0x1e && made[80] == 0x1d && made[81] == 0x87);

    memset(ramp, 0x0b, 22);
    CHECK(nc_hkdf_extract(NULL, 0, ramp, 22, prk, &err) == NC_ERR_OK);
    CHECK(nc_hkdf_expand(prk, NULL, 0, made, 42, &err) == NC_ERR_OK);
    CHECK(memcmp(made, bare, sizeof bare) == 0);
    CHECK(nc_hkdf_extract(NULL, 0, NULL, 0, prk, &err) == NC_ERR_OK);
}

static void wiped_is_zero(void)
{
    uint8_t secret[40];

    memset(secret, 0xaa, sizeof secret);
    nc_crypto_wipe(secret, 39);
    for (size_t i = 0; i < 39; i++)
        CHECK(secret[i] == 0);
    CHECK(secret[39] == 0xaa);
    nc_crypto_wipe(secret, 0);
}

int main(void)
{
    a_library_that_is_not_there_or_computes_wrongly_is_unavailable();
    after_a_failure_another_library_may_be_tried_and_then_it_stays();
    what_is_sealed_opens_in_place_and_elsewhere();
    whatever_is_changed_is_noticed_and_leaves_nothing_behind();
    nothing_at_all_has_a_tag_too();
    misuse_is_refused_before_anything_is_touched();
    hkdf_gives_the_answers_of_its_rfc();
    wiped_is_zero();
    return CHECK_RESULT;
}
