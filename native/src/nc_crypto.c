#include "nc_crypto.h"

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nc_crypto_abi.h"
#include "nc_err.h"

/* The longest info of an expansion: the key schedule needs 61 bytes. */
#define MAX_INFO 256
/* RFC 5869: the counter of an expansion is one byte. */
#define MAX_EXPANSION (255 * NC_CRYPTO_HASH_BYTES)

struct libcrypto {
    void *library;
    char version[64];
#define X(name, type, parameters) type(*name) parameters;
    NC_CRYPTO_SYMBOLS(X)
#undef X
};

struct nc_aead {
    const struct libcrypto *libcrypto;
    struct evp_cipher_ctx_st *context;
    int seal;
    uint8_t iv[NC_CRYPTO_NONCE_BYTES];
};

/* ISO C has no cast from void * to a function pointer; POSIX guarantees the representation. */
static_assert(sizeof(void *) == sizeof(void (*)(void)), "dlsym");

/* Never freed: contexts of other threads may point to it. */
static struct libcrypto storage;
static _Atomic(const struct libcrypto *) loaded;
static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;

void nc_crypto_wipe(void *data, size_t size)
{
    explicit_bzero(data, size);
}

/* --- AES-256-GCM ----------------------------------------------------------------------------- */

void nc_aead_close(struct nc_aead *aead)
{
    if (aead == NULL)
        return;
    /* libcrypto zeroises the key schedule of a context it frees. */
    if (aead->context != NULL)
        aead->libcrypto->EVP_CIPHER_CTX_free(aead->context);
    nc_crypto_wipe(aead, sizeof *aead);
    free(aead);
}

static int aead_open(const struct libcrypto *libcrypto, const uint8_t *key, const uint8_t *iv,
                     int seal, struct nc_aead **ret_aead, struct nc_err *err)
{
    struct nc_aead *aead = calloc(1, sizeof *aead);

    *ret_aead = NULL;
    if (aead == NULL)
        return nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for a cipher");
    aead->libcrypto = libcrypto;
    aead->seal = seal != 0;
    memcpy(aead->iv, iv, sizeof aead->iv);
    aead->context = libcrypto->EVP_CIPHER_CTX_new();
    if (aead->context == NULL ||
        libcrypto->EVP_CipherInit_ex(aead->context, libcrypto->EVP_aes_256_gcm(), NULL, key, NULL,
                                     aead->seal) != 1) {
        libcrypto->ERR_clear_error();
        nc_aead_close(aead);
        /* A FIPS configuration without a usable provider does this. */
        return nc_err_set(err, NC_ERR_UNAVAILABLE, 0, "libcrypto gives no AES-256-GCM");
    }
    *ret_aead = aead;
    return NC_ERR_OK;
}

int nc_aead_open(const uint8_t key[NC_CRYPTO_KEY_BYTES], const uint8_t iv[NC_CRYPTO_NONCE_BYTES],
                 int seal, struct nc_aead **ret_aead, struct nc_err *err)
{
    int code = nc_crypto_load(NULL, err);

    *ret_aead = NULL;
    if (code != NC_ERR_OK)
        return code;
    return aead_open(atomic_load_explicit(&loaded, memory_order_acquire), key, iv, seal, ret_aead,
                     err);
}

/* Sets the nonce; the key and its schedule stay. */
static int begin(const struct nc_aead *aead, uint64_t sequence)
{
    uint8_t nonce[NC_CRYPTO_NONCE_BYTES];

    memcpy(nonce, aead->iv, sizeof nonce);
    for (size_t i = 0; i < 8; i++)
        nonce[4 + i] ^= (uint8_t)(sequence >> (56 - 8 * i));
    return aead->libcrypto->EVP_CipherInit_ex(aead->context, NULL, NULL, NULL, nonce, aead->seal) ==
           1;
}

static int check_sizes(const struct nc_aead *aead, int seal, size_t aad_size, size_t size,
                       struct nc_err *err)
{
    if (aead->seal != seal)
        return nc_err_set(err, NC_ERR_INVALID, 0, "the cipher was opened for the other direction");
    if (size > INT_MAX || aad_size > INT_MAX)
        return nc_err_set(err, NC_ERR_INVALID, 0, "one message holds at most %d bytes", INT_MAX);
    return NC_ERR_OK;
}

int nc_aead_seal(struct nc_aead *aead, uint64_t sequence, const void *aad, size_t aad_size,
                 const void *in, size_t size, void *out, uint8_t ret_tag[NC_CRYPTO_TAG_BYTES],
                 struct nc_err *err)
{
    return nc_aead_seal_with(aead, sequence, aad, aad_size, in, size, NULL, 0, out, ret_tag, err);
}

int nc_aead_seal_with(struct nc_aead *aead, uint64_t sequence, const void *aad, size_t aad_size,
                      const void *in, size_t size, const void *tail, size_t tail_size, void *out,
                      uint8_t ret_tag[NC_CRYPTO_TAG_BYTES], struct nc_err *err)
{
    const struct libcrypto *libcrypto = aead->libcrypto;
    uint8_t nothing[NC_CRYPTO_TAG_BYTES];
    int done = 0;
    int code = tail_size > INT_MAX - size % INT_MAX
                   ? nc_err_set(err, NC_ERR_INVALID, 0, "a tail of %zu bytes", tail_size)
                   : check_sizes(aead, 1, aad_size, size, err);

    if (code != NC_ERR_OK)
        return code;
    if (!begin(aead, sequence) ||
        (aad_size > 0 &&
         libcrypto->EVP_EncryptUpdate(aead->context, NULL, &done, aad, (int)aad_size) != 1) ||
        (size > 0 && (libcrypto->EVP_EncryptUpdate(aead->context, out, &done, in, (int)size) != 1 ||
                      (size_t)done != size)) ||
        (tail_size > 0 && (libcrypto->EVP_EncryptUpdate(aead->context, (uint8_t *)out + size, &done,
                                                        tail, (int)tail_size) != 1 ||
                           (size_t)done != tail_size)) ||
        libcrypto->EVP_EncryptFinal_ex(aead->context, nothing, &done) != 1 ||
        libcrypto->EVP_CIPHER_CTX_ctrl(aead->context, NC_CRYPTO_CTRL_AEAD_GET_TAG,
                                       NC_CRYPTO_TAG_BYTES, ret_tag) != 1) {
        libcrypto->ERR_clear_error();
        return nc_err_set(err, NC_ERR_SYSTEM, 0, "libcrypto failed to seal %zu bytes", size);
    }
    return NC_ERR_OK;
}

int nc_aead_unseal(struct nc_aead *aead, uint64_t sequence, const void *aad, size_t aad_size,
                   const void *in, size_t size, void *out, const uint8_t tag[NC_CRYPTO_TAG_BYTES],
                   struct nc_err *err)
{
    const struct libcrypto *libcrypto = aead->libcrypto;
    uint8_t expected[NC_CRYPTO_TAG_BYTES];
    uint8_t nothing[NC_CRYPTO_TAG_BYTES];
    int done = 0;
    int code = check_sizes(aead, 0, aad_size, size, err);

    if (code != NC_ERR_OK)
        return code;
    /* The library's parameter is not const. */
    memcpy(expected, tag, sizeof expected);
    if (!begin(aead, sequence) ||
        (aad_size > 0 &&
         libcrypto->EVP_DecryptUpdate(aead->context, NULL, &done, aad, (int)aad_size) != 1) ||
        (size > 0 && (libcrypto->EVP_DecryptUpdate(aead->context, out, &done, in, (int)size) != 1 ||
                      (size_t)done != size)) ||
        libcrypto->EVP_CIPHER_CTX_ctrl(aead->context, NC_CRYPTO_CTRL_AEAD_SET_TAG,
                                       NC_CRYPTO_TAG_BYTES, expected) != 1) {
        libcrypto->ERR_clear_error();
        if (size > 0)
            nc_crypto_wipe(out, size);
        return nc_err_set(err, NC_ERR_SYSTEM, 0, "libcrypto failed to open %zu bytes", size);
    }
    if (libcrypto->EVP_DecryptFinal_ex(aead->context, nothing, &done) != 1) {
        /* Python's ssl module looks at the same thread's queue of errors. */
        libcrypto->ERR_clear_error();
        /* What was decrypted is not what anybody sealed: nobody shall use it by mistake. */
        if (size > 0)
            nc_crypto_wipe(out, size);
        return nc_err_set(err, NC_ERR_INTEGRITY, 0, "the tag of sequence %llu does not hold",
                          (unsigned long long)sequence);
    }
    return NC_ERR_OK;
}

/* --- HKDF-SHA256 ----------------------------------------------------------------------------- */

static int hmac(const struct libcrypto *libcrypto, const void *key, size_t key_size,
                const uint8_t *data, size_t size, uint8_t ret_mac[NC_CRYPTO_HASH_BYTES],
                struct nc_err *err)
{
    unsigned int written = 0;

    if (libcrypto->HMAC(libcrypto->EVP_sha256(), key, (int)key_size, data, size, ret_mac,
                        &written) == NULL ||
        written != NC_CRYPTO_HASH_BYTES) {
        libcrypto->ERR_clear_error();
        return nc_err_set(err, NC_ERR_UNAVAILABLE, 0, "libcrypto gives no HMAC-SHA256");
    }
    return NC_ERR_OK;
}

static int expand(const struct libcrypto *libcrypto, const uint8_t *prk, const void *info,
                  size_t info_size, uint8_t *ret_key, size_t size, struct nc_err *err)
{
    /* Block i is the MAC of block i-1, the info and i: one buffer holds the three. */
    uint8_t message[NC_CRYPTO_HASH_BYTES + MAX_INFO + 1];
    uint8_t block[NC_CRYPTO_HASH_BYTES];
    size_t before = 0;
    int code = NC_ERR_OK;

    if (info_size > MAX_INFO || size > MAX_EXPANSION)
        return nc_err_set(err, NC_ERR_INVALID, 0, "an expansion takes %d bytes and gives %d",
                          MAX_INFO, MAX_EXPANSION);
    for (size_t done = 0, counter = 1; done < size; counter++) {
        size_t part = size - done < sizeof block ? size - done : sizeof block;

        memcpy(message, block, before);
        if (info_size > 0)
            memcpy(message + before, info, info_size);
        message[before + info_size] = (uint8_t)counter;
        code =
            hmac(libcrypto, prk, NC_CRYPTO_HASH_BYTES, message, before + info_size + 1, block, err);
        if (code != NC_ERR_OK)
            break;
        memcpy(ret_key + done, block, part);
        done += part;
        before = sizeof block;
    }
    if (code != NC_ERR_OK)
        nc_crypto_wipe(ret_key, size);
    nc_crypto_wipe(message, sizeof message);
    nc_crypto_wipe(block, sizeof block);
    return code;
}

int nc_hkdf_expand(const uint8_t prk[NC_CRYPTO_HASH_BYTES], const void *info, size_t info_size,
                   uint8_t *ret_key, size_t size, struct nc_err *err)
{
    int code = nc_crypto_load(NULL, err);

    if (code != NC_ERR_OK)
        return code;
    return expand(atomic_load_explicit(&loaded, memory_order_acquire), prk, info, info_size,
                  ret_key, size, err);
}

static int extract(const struct libcrypto *libcrypto, const void *salt, size_t salt_size,
                   const void *material, size_t size, uint8_t *ret_prk, struct nc_err *err)
{
    /* RFC 5869: no salt is a salt of zeros. */
    static const uint8_t zeros[NC_CRYPTO_HASH_BYTES];

    if (salt_size > INT_MAX || size > INT_MAX)
        return nc_err_set(err, NC_ERR_INVALID, 0, "an extraction takes at most %d bytes", INT_MAX);
    return hmac(libcrypto, salt_size > 0 ? salt : zeros, salt_size > 0 ? salt_size : sizeof zeros,
                size > 0 ? material : zeros, size, ret_prk, err);
}

int nc_hkdf_extract(const void *salt, size_t salt_size, const void *material, size_t size,
                    uint8_t ret_prk[NC_CRYPTO_HASH_BYTES], struct nc_err *err)
{
    int code = nc_crypto_load(NULL, err);

    if (code != NC_ERR_OK)
        return code;
    return extract(atomic_load_explicit(&loaded, memory_order_acquire), salt, salt_size, material,
                   size, ret_prk, err);
}

/* --- Loading --------------------------------------------------------------------------------- */

/* The Galois/Counter Mode of Operation (McGrew, Viega), test case 16: its 60 bytes end inside a
 * block, and it has associated data. */
static int gcm_computes(const struct libcrypto *libcrypto)
{
    static const uint8_t key[32] = {
        0xfe, 0xff, 0xe9, 0x92, 0x86, 0x65, 0x73, 0x1c, 0x6d, 0x6a, 0x8f,
        0x94, 0x67, 0x30, 0x83, 0x08, 0xfe, 0xff, 0xe9, 0x92, 0x86, 0x65,
        0x73, 0x1c, 0x6d, 0x6a, 0x8f, 0x94, 0x67, 0x30, 0x83, 0x08,
    };
    static const uint8_t iv[12] = {0xca, 0xfe, 0xba, 0xbe, 0xfa, 0xce,
                                   0xdb, 0xad, 0xde, 0xca, 0xf8, 0x88};
    static const uint8_t aad[20] = {
        0xfe, 0xed, 0xfa, 0xce, 0xde, 0xad, 0xbe, 0xef, 0xfe, 0xed,
        0xfa, 0xce, 0xde, 0xad, 0xbe, 0xef, 0xab, 0xad, 0xda, 0xd2,
    };
    static const uint8_t clear[60] = {
        0xd9, 0x31, 0x32, 0x25, 0xf8, 0x84, 0x06, 0xe5, 0xa5, 0x59, 0x09, 0xc5, 0xaf, 0xf5, 0x26,
        0x9a, 0x86, 0xa7, 0xa9, 0x53, 0x15, 0x34, 0xf7, 0xda, 0x2e, 0x4c, 0x30, 0x3d, 0x8a, 0x31,
        0x8a, 0x72, 0x1c, 0x3c, 0x0c, 0x95, 0x95, 0x68, 0x09, 0x53, 0x2f, 0xcf, 0x0e, 0x24, 0x49,
        0xa6, 0xb5, 0x25, 0xb1, 0x6a, 0xed, 0xf5, 0xaa, 0x0d, 0xe6, 0x57, 0xba, 0x63, 0x7b, 0x39,
    };
    static const uint8_t sealed[60] = {
        0x52, 0x2d, 0xc1, 0xf0, 0x99, 0x56, 0x7d, 0x07, 0xf4, 0x7f, 0x37, 0xa3, 0x2a, 0x84, 0x42,
        0x7d, 0x64, 0x3a, 0x8c, 0xdc, 0xbf, 0xe5, 0xc0, 0xc9, 0x75, 0x98, 0xa2, 0xbd, 0x25, 0x55,
        0xd1, 0xaa, 0x8c, 0xb0, 0x8e, 0x48, 0x59, 0x0d, 0xbb, 0x3d, 0xa7, 0xb0, 0x8b, 0x10, 0x56,
        0x82, 0x88, 0x38, 0xc5, 0xf6, 0x1e, 0x63, 0x93, 0xba, 0x7a, 0x0a, 0xbc, 0xc9, 0xf6, 0x62,
    };
    static const uint8_t tag[16] = {0x76, 0xfc, 0x6e, 0xce, 0x0f, 0x4e, 0x17, 0x68,
                                    0xcd, 0xdf, 0x88, 0x53, 0xbb, 0x2d, 0x55, 0x1b};
    struct nc_aead *sealer = NULL;
    struct nc_aead *opener = NULL;
    uint8_t bytes[60];
    uint8_t made[16];
    int holds;

    holds = aead_open(libcrypto, key, iv, 1, &sealer, NULL) == NC_ERR_OK &&
            aead_open(libcrypto, key, iv, 0, &opener, NULL) == NC_ERR_OK &&
            nc_aead_seal(sealer, 0, aad, sizeof aad, clear, sizeof clear, bytes, made, NULL) ==
                NC_ERR_OK &&
            memcmp(bytes, sealed, sizeof sealed) == 0 && memcmp(made, tag, sizeof tag) == 0 &&
            nc_aead_unseal(opener, 0, aad, sizeof aad, bytes, sizeof bytes, bytes, made, NULL) ==
                NC_ERR_OK &&
            memcmp(bytes, clear, sizeof clear) == 0;
    if (holds) {
        /* A library that accepts every tag would pass all of the above. */
        made[15] ^= 1;
        holds = nc_aead_unseal(opener, 0, aad, sizeof aad, sealed, sizeof sealed, bytes, made,
                               NULL) == NC_ERR_INTEGRITY;
    }
    nc_aead_close(sealer);
    nc_aead_close(opener);
    return holds;
}

/* RFC 5869, appendix A.1. */
static int hkdf_computes(const struct libcrypto *libcrypto)
{
    static const uint8_t salt[13] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    static const uint8_t info[10] = {0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9};
    static const uint8_t expected[42] = {
        0x3c, 0xb2, 0x5f, 0x25, 0xfa, 0xac, 0xd5, 0x7a, 0x90, 0x43, 0x4f, 0x64, 0xd0, 0x36,
        0x2f, 0x2a, 0x2d, 0x2d, 0x0a, 0x90, 0xcf, 0x1a, 0x5a, 0x4c, 0x5d, 0xb0, 0x2d, 0x56,
        0xec, 0xc4, 0xc5, 0xbf, 0x34, 0x00, 0x72, 0x08, 0xd5, 0xb8, 0x87, 0x18, 0x58, 0x65,
    };
    uint8_t material[22];
    uint8_t prk[NC_CRYPTO_HASH_BYTES];
    uint8_t made[42];

    memset(material, 0x0b, sizeof material);
    return extract(libcrypto, salt, sizeof salt, material, sizeof material, prk, NULL) ==
               NC_ERR_OK &&
           expand(libcrypto, prk, info, sizeof info, made, sizeof made, NULL) == NC_ERR_OK &&
           memcmp(made, expected, sizeof made) == 0;
}

static int find(void *library, const char *symbol, void *ret_function, struct nc_err *err)
{
    void *address = dlsym(library, symbol);

    if (address == NULL)
        return nc_err_set(err, NC_ERR_UNAVAILABLE, 0, "libcrypto has no %s", symbol);
    memcpy(ret_function, &address, sizeof address);
    return NC_ERR_OK;
}

static int load_one(const char *soname, struct libcrypto *libcrypto, struct nc_err *err)
{
    int code;

    /* NODELETE: the library registers handlers that run when a thread and when the process ends. */
    libcrypto->library = dlopen(soname, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (libcrypto->library == NULL) {
        const char *reason = dlerror();

        return nc_err_set(err, NC_ERR_UNAVAILABLE, 0, "%s",
                          reason != NULL ? reason : "libcrypto cannot be loaded");
    }
#define X(name, type, parameters)                                                                  \
    code = find(libcrypto->library, #name, &libcrypto->name, err);                                 \
    if (code != NC_ERR_OK)                                                                         \
        goto fail;
    NC_CRYPTO_SYMBOLS(X)
#undef X
    (void)snprintf(libcrypto->version, sizeof libcrypto->version, "%s",
                   libcrypto->OpenSSL_version(NC_CRYPTO_OPENSSL_VERSION));
    if (!gcm_computes(libcrypto)) {
        code = nc_err_set(err, NC_ERR_UNAVAILABLE, 0, "AES-256-GCM of %s computes wrongly",
                          libcrypto->version);
        goto fail;
    }
    if (!hkdf_computes(libcrypto)) {
        code = nc_err_set(err, NC_ERR_UNAVAILABLE, 0, "HMAC-SHA256 of %s computes wrongly",
                          libcrypto->version);
        goto fail;
    }
    return NC_ERR_OK;

fail:
    (void)dlclose(libcrypto->library);
    return code;
}

int nc_crypto_load(const char *soname, struct nc_err *err)
{
    static const char *const sonames[] = {"libcrypto.so.3", "libcrypto.so.1.1"};
    int code;

    if (atomic_load_explicit(&loaded, memory_order_acquire) != NULL)
        return NC_ERR_OK;
    (void)pthread_mutex_lock(&loading);
    if (atomic_load_explicit(&loaded, memory_order_relaxed) != NULL) {
        code = NC_ERR_OK;
    } else if (soname != NULL) {
        code = load_one(soname, &storage, err);
    } else {
        code = load_one(sonames[0], &storage, err);
        /* The reason that is kept is the first one's, unless only the second is there. */
        if (code != NC_ERR_OK && load_one(sonames[1], &storage, NULL) == NC_ERR_OK)
            code = NC_ERR_OK;
    }
    if (code == NC_ERR_OK)
        atomic_store_explicit(&loaded, &storage, memory_order_release);
    (void)pthread_mutex_unlock(&loading);
    return code;
}

const char *nc_crypto_version(void)
{
    const struct libcrypto *libcrypto = atomic_load_explicit(&loaded, memory_order_acquire);

    return libcrypto != NULL ? libcrypto->version : "";
}
