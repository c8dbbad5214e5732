/* A libcrypto that computes wrongly: it hands every call to the real one and spoils the answer.
 * FAKE_CRYPTO in the environment says which: cipher, tag (accepts every one), hash, nocontext,
 * nokey; anything else: nothing is wrong. FAKE_WITHOUT_HMAC builds a library that lacks a symbol.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "../src/nc_crypto_abi.h"

#define X(name, type, parameters) type name parameters;
NC_CRYPTO_SYMBOLS(X)
#undef X

static int fault(const char *name)
{
    const char *wanted = getenv("FAKE_CRYPTO");

    return wanted != NULL && strcmp(wanted, name) == 0;
}

static void *real(const char *symbol)
{
    void *library = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    void *address;

    if (library == NULL)
        library = dlopen("libcrypto.so.1.1", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    address = library != NULL ? dlsym(library, symbol) : NULL;
    if (address == NULL)
        abort();
    return address;
}

/* A pointer of the function's own type, for typeof is what GNU C has for that. */
#define REAL(name)                                                                                 \
    __typeof__(&name) function;                                                                    \
    void *address = real(#name);                                                                   \
    memcpy(&function, &address, sizeof function)

const char *OpenSSL_version(int type)
{
    (void)type;
    return "Fake 1.0";
}

void ERR_clear_error(void)
{
    REAL(ERR_clear_error);

    function();
}

const struct evp_cipher_st *EVP_aes_256_gcm(void)
{
    REAL(EVP_aes_256_gcm);

    return function();
}

const struct evp_md_st *EVP_sha256(void)
{
    REAL(EVP_sha256);

    return function();
}

struct evp_cipher_ctx_st *EVP_CIPHER_CTX_new(void)
{
    REAL(EVP_CIPHER_CTX_new);

    return fault("nocontext") ? NULL : function();
}

void EVP_CIPHER_CTX_free(struct evp_cipher_ctx_st *context)
{
    REAL(EVP_CIPHER_CTX_free);

    function(context);
}

int EVP_CIPHER_CTX_ctrl(struct evp_cipher_ctx_st *context, int type, int number, void *pointer)
{
    REAL(EVP_CIPHER_CTX_ctrl);

    return function(context, type, number, pointer);
}

int EVP_CipherInit_ex(struct evp_cipher_ctx_st *context, const struct evp_cipher_st *cipher,
                      struct engine_st *engine, const unsigned char *key, const unsigned char *iv,
                      int encrypt)
{
    REAL(EVP_CipherInit_ex);

    return fault("nokey") ? 0 : function(context, cipher, engine, key, iv, encrypt);
}

int EVP_EncryptUpdate(struct evp_cipher_ctx_st *context, unsigned char *out, int *out_size,
                      const unsigned char *in, int size)
{
    REAL(EVP_EncryptUpdate);
    int answer = function(context, out, out_size, in, size);

    if (out != NULL && size > 0 && fault("cipher"))
        out[size - 1] ^= 1;
    return answer;
}

int EVP_EncryptFinal_ex(struct evp_cipher_ctx_st *context, unsigned char *out, int *out_size)
{
    REAL(EVP_EncryptFinal_ex);

    return function(context, out, out_size);
}

int EVP_DecryptUpdate(struct evp_cipher_ctx_st *context, unsigned char *out, int *out_size,
                      const unsigned char *in, int size)
{
    REAL(EVP_DecryptUpdate);

    return function(context, out, out_size, in, size);
}

int EVP_DecryptFinal_ex(struct evp_cipher_ctx_st *context, unsigned char *out, int *out_size)
{
    REAL(EVP_DecryptFinal_ex);
    int answer = function(context, out, out_size);

    return fault("tag") ? 1 : answer;
}

#ifndef FAKE_WITHOUT_HMAC
unsigned char *HMAC(const struct evp_md_st *hash, const void *key, int key_size,
                    const unsigned char *data, size_t size, unsigned char *ret_mac,
                    unsigned int *ret_size)
{
    REAL(HMAC);
    unsigned char *answer = function(hash, key, key_size, data, size, ret_mac, ret_size);

    if (answer != NULL && fault("hash"))
        ret_mac[31] ^= 1;
    return answer;
}
#endif
