/* The frames of AMST: layout, checks, key schedule. Pure: no socket, no clock, no allocation.
 * docs/reference/amst-protocol.md is the specification. All numbers are big-endian on the wire. */
#ifndef NC_FRAME_H
#define NC_FRAME_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "nc_crypto.h"

struct nc_err;

#define NC_FRAME_MAGIC 0x4e434133u /* "NCA3" */
#define NC_FRAME_VERSION 3
#define NC_FRAME_HEADER_BYTES 64
#define NC_FRAME_CHECKSUM_BYTES 4
#define NC_FRAME_MIN_CHUNK (64u * 1024)
#define NC_FRAME_MAX_CHUNK (4u * 1024 * 1024)
/* Payload of DATA and SEGMENT: the bytes and their checksum. Of all others: this at most. */
#define NC_FRAME_MAX_CONTROL 4096
#define NC_FRAME_HELLO_PAYLOAD_BYTES 32
#define NC_FRAME_HELLO_BYTES                                                                       \
    (NC_FRAME_HEADER_BYTES + NC_FRAME_HELLO_PAYLOAD_BYTES + NC_CRYPTO_TAG_BYTES)
#define NC_FRAME_ZERO_PAYLOAD_BYTES 8
#define NC_FRAME_ACK_BYTES 32
#define NC_FRAME_MAX_ACKS 127
/* A new epoch, and with it a new key, after this many frames or bytes in one direction of a stream.
 */
#define NC_FRAME_EPOCH_FRAMES (1u << 16)
#define NC_FRAME_EPOCH_BYTES (UINT64_C(64) << 30)
/* Before the delta stream of a delta frame: be32 CRC-32 of the base's chunk, be32 size of the delta
 * stream before the codec. */
#define NC_FRAME_DELTA_BYTES 8

/* Bits of `flags`. */
enum nc_frame_flag {
    NC_FRAME_DELTA = 1, /* of DATA: coded against the base that `base` names */
};
/* Codecs a frame may name; see nc_codec.h. */
#define NC_FRAME_CODECS 3

enum nc_frame_type {
    NC_FRAME_HELLO = 1,     /* initiator's first on a connection */
    NC_FRAME_HELLO_ACK = 2, /* acceptor's answer */
    NC_FRAME_DATA = 3,      /* a chunk of an object: `offset` in it */
    NC_FRAME_ZERO = 4,      /* a run of zero bytes of an object: `offset`, payload be64 length */
    NC_FRAME_ACK = 5,       /* payload: 1 to 127 acknowledgements, see nc_frame_ack */
    NC_FRAME_SEGMENT = 6,   /* a piece of a byte stream: `offset` is its place in it */
    NC_FRAME_END = 7,       /* end of a byte stream: `offset` is its length; no payload */
    NC_FRAME_BYE = 8,       /* the sender sends nothing more on this connection; no payload */
    NC_FRAME_MAX
};

/* Header, host form. On the wire, in this order:
 *   0 magic 4 | 4 version 1 | 5 type 1 | 6 flags 1 | 7 codec 1 (0 raw, 1 lz4, 2 zstd)
 *   8 stream 4 | 12 epoch 4 | 16 sequence 8 | 24 object 4 | 28 generation 4
 *   32 offset 8 | 40 raw_size 4 | 44 wire_size 4 | 48 base 4 | 52 reserved 8 (0) | 60 check 4
 * raw_size: bytes of content before the codec, of DATA and SEGMENT; 0 in all others. wire_size:
 * bytes of payload after the header, the content checksum included, the tag not. Flags, codec and
 * base are 0 in all but DATA; base is not 0 exactly where NC_FRAME_DELTA is set. What is coded is
 * never larger than raw_size and the checksum. object is not 0 in
 * DATA, ZERO, SEGMENT and END; in all others object, generation and offset are 0. check: CRC-32 of
 * bytes 0..59, begun with the link's seed, so that a frame of another link is refused also where
 * nothing is encrypted. */
struct nc_frame {
    uint8_t type;
    uint8_t flags;
    uint8_t codec;
    uint32_t stream;
    uint32_t epoch;
    uint64_t sequence;
    uint32_t object;
    uint32_t generation;
    uint64_t offset;
    uint32_t raw_size;
    uint32_t wire_size;
    uint32_t base;
};

void nc_frame_write(const struct nc_frame *frame, uint32_t seed,
                    uint8_t ret_header[NC_FRAME_HEADER_BYTES]);
/* Every check that needs nothing but the header: magic, version, checksum, reserved bits, type,
 * sizes against the type and max_chunk, and that no content ends beyond INT64_MAX. PROTOCOL with
 * the reason; *ret_frame is then untouched. */
int nc_frame_read(const uint8_t header[NC_FRAME_HEADER_BYTES], uint32_t seed, uint32_t max_chunk,
                  struct nc_frame *ret_frame, struct nc_err *err);

enum nc_ack_kind {
    NC_ACK_CHUNK = 1,   /* the chunk at `offset` is written; `value`: its bytes */
    NC_ACK_ZERO = 2,    /* the zero run at `offset` is noted; `value`: its bytes */
    NC_ACK_SEGMENT = 3, /* the segment at `offset` arrived; `value`: its bytes; 0: it is the END */
    NC_ACK_READ = 4,    /* byte stream: everything before `offset` left the receiver */
    NC_ACK_REFUSED = 5, /* the object failed at the receiver; `value`: why, by number; `offset`: an
                           errno, or 0 */
    NC_ACK_BASE = 6,    /* the chunk at `offset` was not taken, since it is a delta and the base is
                           not here: to be sent whole; `value`: its bytes */
    NC_ACK_MAX
};

/* The largest errno of Linux; the refusal of an object carries none above. */
#define NC_ACK_MAX_ERRNO 4095

/* 32 bytes: kind 1 | reserved 3 (0) | object 4 | generation 4 | reserved 4 (0) | offset 8 | value 8
 */
struct nc_frame_ack {
    uint8_t kind;
    uint32_t object;
    uint32_t generation;
    uint64_t offset;
    uint64_t value;
};

void nc_frame_ack_write(const struct nc_frame_ack *ack, uint8_t ret_bytes[NC_FRAME_ACK_BYTES]);
int nc_frame_ack_read(const uint8_t bytes[NC_FRAME_ACK_BYTES], struct nc_frame_ack *ret_ack,
                      struct nc_err *err);

/* What follows the payload: the tag on an encrypted link. On one that is not, frames whose payload
 * is not content have no checksum in it, and so get one behind it: CRC-32, begun with the link's
 * seed. So do frames of coded content: a codec may make the same of bytes that were changed, and a
 * difference cannot be checked where the base is gone. */
size_t nc_frame_trailer_bytes(const struct nc_frame *frame, int encrypted);

/* What NC_ACK_REFUSED carries. X(nc_err_code, number on the wire): those of nc_err_code are private
 * to one build. SYSTEM stands for everything that is not in the table, in both directions. */
#define NC_FRAME_ERRORS(X)                                                                         \
    X(SYSTEM, 1)                                                                                   \
    X(MEMORY, 2)                                                                                   \
    X(UNAVAILABLE, 3)                                                                              \
    X(DENIED, 4)                                                                                   \
    X(INVALID, 5)                                                                                  \
    X(NOT_FOUND, 6)                                                                                \
    X(LIMIT, 7)                                                                                    \
    X(PROTOCOL, 8)                                                                                 \
    X(INTEGRITY, 9)                                                                                \
    X(CLOSED, 10)                                                                                  \
    X(TIMEOUT, 11)

uint64_t nc_frame_error_number(int code);
int nc_frame_error_code(uint64_t number);

/* HELLO and HELLO_ACK: header (wire_size 32) | link id 16 | random 16 | tag 16. The payload is in
 * clear, since the acceptor finds the link by it; the tag is AES-256-GCM over nothing with header
 * and payload as associated data, sequence 0 of epoch 0, encrypted link or not. */

/* Directions: 0 from the initiator of the link, 1 to it. */
struct nc_frame_key {
    uint8_t key[NC_CRYPTO_KEY_BYTES];
    uint8_t iv[NC_CRYPTO_NONCE_BYTES];
};

/* HKDF-Expand(secret, "novacron amst v3 key" | context 32 | direction 1 | be32 stream | be32 epoch,
 * 44): 32 bytes of key, then 12 of iv. `context` is SHA-256(link id | initiator's certificate hash
 * | acceptor's certificate hash). The caller wipes *ret_key. */
int nc_frame_key(const uint8_t secret[NC_CRYPTO_HASH_BYTES],
                 const uint8_t context[NC_CRYPTO_HASH_BYTES], int direction, uint32_t stream,
                 uint32_t epoch, struct nc_frame_key *ret_key, struct nc_err *err);
/* be32 of HKDF-Expand(secret, "novacron amst v3 seed" | context, 4): the seed of header checksums.
 */
int nc_frame_seed(const uint8_t secret[NC_CRYPTO_HASH_BYTES],
                  const uint8_t context[NC_CRYPTO_HASH_BYTES], uint32_t *ret_seed,
                  struct nc_err *err);

#endif
