/* The part of libcrypto's interface this extension uses, declared here.
 *
 * The development headers are not needed to build, and the built module has no undefined symbol of
 * libcrypto. Only functions that 1.1.1 and 3.x both export, and none that 3.x deprecates; only
 * opaque structs. Where the headers are there, native/tests/test_crypto_abi.c holds these
 * declarations against them. Private to nc_crypto.c and its tests. */
#ifndef NC_CRYPTO_ABI_H
#define NC_CRYPTO_ABI_H

#include <stddef.h>

struct engine_st;
struct evp_cipher_ctx_st;
struct evp_cipher_st;
struct evp_md_st;

/* X(name, return type, parameters): makes the table of pointers and the loader. */
#define NC_CRYPTO_SYMBOLS(X)                                                                       \
    X(OpenSSL_version, const char *, (int type))                                                   \
    X(ERR_clear_error, void, (void))                                                               \
    X(EVP_aes_256_gcm, const struct evp_cipher_st *, (void))                                       \
    X(EVP_sha256, const struct evp_md_st *, (void))                                                \
    X(EVP_CIPHER_CTX_new, struct evp_cipher_ctx_st *, (void))                                      \
    X(EVP_CIPHER_CTX_free, void, (struct evp_cipher_ctx_st * context))                             \
    X(EVP_CIPHER_CTX_ctrl, int,                                                                    \
      (struct evp_cipher_ctx_st * context, int type, int number, void *pointer))                   \
    X(EVP_CipherInit_ex, int,                                                                      \
      (struct evp_cipher_ctx_st * context, const struct evp_cipher_st *cipher,                     \
       struct engine_st *engine, const unsigned char *key, const unsigned char *iv, int encrypt))  \
    X(EVP_EncryptUpdate, int,                                                                      \
      (struct evp_cipher_ctx_st * context, unsigned char *out, int *out_size,                      \
       const unsigned char *in, int size))                                                         \
    X(EVP_EncryptFinal_ex, int,                                                                    \
      (struct evp_cipher_ctx_st * context, unsigned char *out, int *out_size))                     \
    X(EVP_DecryptUpdate, int,                                                                      \
      (struct evp_cipher_ctx_st * context, unsigned char *out, int *out_size,                      \
       const unsigned char *in, int size))                                                         \
    X(EVP_DecryptFinal_ex, int,                                                                    \
      (struct evp_cipher_ctx_st * context, unsigned char *out, int *out_size))                     \
    X(HMAC, unsigned char *,                                                                       \
      (const struct evp_md_st *hash, const void *key, int key_size, const unsigned char *data,     \
       size_t size, unsigned char *ret_mac, unsigned int *ret_size))

/* Values of macros, which no symbol carries. */
#define NC_CRYPTO_OPENSSL_VERSION 0
#define NC_CRYPTO_CTRL_AEAD_GET_TAG 0x10
#define NC_CRYPTO_CTRL_AEAD_SET_TAG 0x11

#endif
