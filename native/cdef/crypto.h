#define NC_CRYPTO_KEY_BYTES ...
#define NC_CRYPTO_NONCE_BYTES ...
#define NC_CRYPTO_TAG_BYTES ...
#define NC_CRYPTO_HASH_BYTES ...

int nc_crypto_load(const char *soname, struct nc_err *err);
const char *nc_crypto_version(void);

struct nc_aead;

int nc_aead_open(const uint8_t *key, const uint8_t *iv, int seal, struct nc_aead **ret_aead,
                 struct nc_err *err);
void nc_aead_close(struct nc_aead *aead);
int nc_aead_seal(struct nc_aead *aead, uint64_t sequence, const void *aad, size_t aad_size,
                 const void *in, size_t size, void *out, uint8_t *ret_tag, struct nc_err *err);
int nc_aead_unseal(struct nc_aead *aead, uint64_t sequence, const void *aad, size_t aad_size,
                   const void *in, size_t size, void *out, const uint8_t *tag, struct nc_err *err);
int nc_hkdf_expand(const uint8_t *prk, const void *info, size_t info_size, uint8_t *ret_key,
                   size_t size, struct nc_err *err);
int nc_hkdf_extract(const void *salt, size_t salt_size, const void *material, size_t size,
                    uint8_t *ret_prk, struct nc_err *err);
void nc_crypto_wipe(void *data, size_t size);
