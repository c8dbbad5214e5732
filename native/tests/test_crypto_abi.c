/* Holds the declarations of nc_crypto_abi.h against OpenSSL's own headers: this file is only
 * compiled, with -Werror, and only where the headers are installed. */
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "../src/nc_crypto_abi.h"

#define X(name, type, parameters) extern type(*check_##name) parameters;
NC_CRYPTO_SYMBOLS(X)
#undef X

#define X(name, type, parameters) type(*check_##name) parameters = &name;
NC_CRYPTO_SYMBOLS(X)
#undef X

_Static_assert(NC_CRYPTO_OPENSSL_VERSION == OPENSSL_VERSION, "OPENSSL_VERSION");
_Static_assert(NC_CRYPTO_CTRL_AEAD_GET_TAG == EVP_CTRL_AEAD_GET_TAG, "EVP_CTRL_AEAD_GET_TAG");
_Static_assert(NC_CRYPTO_CTRL_AEAD_SET_TAG == EVP_CTRL_AEAD_SET_TAG, "EVP_CTRL_AEAD_SET_TAG");
