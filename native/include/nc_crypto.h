/* AES-256-GCM (NIST SP 800-38D) and HKDF-SHA256 (RFC 5869) from libcrypto, which is loaded at run
 * time and need not be there. */
#ifndef NC_CRYPTO_H
#define NC_CRYPTO_H

#include <stddef.h>
#include <stdint.h>

struct nc_err;

#define NC_CRYPTO_KEY_BYTES 32
#define NC_CRYPTO_NONCE_BYTES 12
#define NC_CRYPTO_TAG_BYTES 16
#define NC_CRYPTO_HASH_BYTES 32

/* Loads libcrypto once for the process and checks a known answer of AES-256-GCM and of HKDF.
 * `soname` NULL: libcrypto.so.3, then libcrypto.so.1.1. UNAVAILABLE with the reason where there is
 * none, where it lacks a function, or where it computes wrongly; the next call then tries again.
 * Thread-safe; once it succeeded, calls are free (a soname given later is ignored). What follows
 * calls it with NULL where nobody did. */
int nc_crypto_load(const char *soname, struct nc_err *err);
/* "OpenSSL 3.0.15 3 Sep 2024"; empty before nc_crypto_load succeeded. */
const char *nc_crypto_version(void);

/* One key, used in one direction by one thread at a time. */
struct nc_aead;

int nc_aead_open(const uint8_t key[NC_CRYPTO_KEY_BYTES], const uint8_t iv[NC_CRYPTO_NONCE_BYTES],
                 int seal, struct nc_aead **ret_aead, struct nc_err *err);
/* Zeroises and frees; takes NULL. */
void nc_aead_close(struct nc_aead *aead);

/* The nonce is iv XOR be64(sequence) in its last eight bytes (as TLS 1.3 and QUIC do); the caller
 * never seals twice with one sequence. in and out may be the same; out has size bytes. */
int nc_aead_seal(struct nc_aead *aead, uint64_t sequence, const void *aad, size_t aad_size,
                 const void *in, size_t size, void *out, uint8_t ret_tag[NC_CRYPTO_TAG_BYTES],
                 struct nc_err *err);
/* The same for a message of two parts, so that what lies elsewhere need not be copied to its end
 * first; out has size + tail_size bytes. */
int nc_aead_seal_with(struct nc_aead *aead, uint64_t sequence, const void *aad, size_t aad_size,
                      const void *in, size_t size, const void *tail, size_t tail_size, void *out,
                      uint8_t ret_tag[NC_CRYPTO_TAG_BYTES], struct nc_err *err);
/* INTEGRITY where the tag does not hold; `out` is then zeroised. Both: INVALID over INT_MAX bytes.
 */
int nc_aead_unseal(struct nc_aead *aead, uint64_t sequence, const void *aad, size_t aad_size,
                   const void *in, size_t size, void *out, const uint8_t tag[NC_CRYPTO_TAG_BYTES],
                   struct nc_err *err);

/* info_size up to 256, size up to 8160. */
int nc_hkdf_expand(const uint8_t prk[NC_CRYPTO_HASH_BYTES], const void *info, size_t info_size,
                   uint8_t *ret_key, size_t size, struct nc_err *err);
int nc_hkdf_extract(const void *salt, size_t salt_size, const void *material, size_t size,
                    uint8_t ret_prk[NC_CRYPTO_HASH_BYTES], struct nc_err *err);

/* Not optimised away. */
void nc_crypto_wipe(void *data, size_t size);

#endif
