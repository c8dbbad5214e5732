#include "nc_frame.h"

#include <string.h>

#include "nc_crc.h"
#include "nc_err.h"

/* The wire, as bytes: no alignment, no byte order, no padding. */
struct wire_header {
    uint8_t magic[4];
    uint8_t version;
    uint8_t type;
    uint8_t flags;
    uint8_t codec;
    uint8_t stream[4];
    uint8_t epoch[4];
    uint8_t sequence[8];
    uint8_t object[4];
    uint8_t generation[4];
    uint8_t offset[8];
    uint8_t raw_size[4];
    uint8_t wire_size[4];
    uint8_t base[4];
    uint8_t reserved[8];
    uint8_t check[4];
};

static_assert(sizeof(struct wire_header) == NC_FRAME_HEADER_BYTES, "header");
static_assert(offsetof(struct wire_header, version) == 4, "version");
static_assert(offsetof(struct wire_header, type) == 5, "type");
static_assert(offsetof(struct wire_header, flags) == 6, "flags");
static_assert(offsetof(struct wire_header, codec) == 7, "codec");
static_assert(offsetof(struct wire_header, stream) == 8, "stream");
static_assert(offsetof(struct wire_header, epoch) == 12, "epoch");
static_assert(offsetof(struct wire_header, sequence) == 16, "sequence");
static_assert(offsetof(struct wire_header, object) == 24, "object");
static_assert(offsetof(struct wire_header, generation) == 28, "generation");
static_assert(offsetof(struct wire_header, offset) == 32, "offset");
static_assert(offsetof(struct wire_header, raw_size) == 40, "raw_size");
static_assert(offsetof(struct wire_header, wire_size) == 44, "wire_size");
static_assert(offsetof(struct wire_header, base) == 48, "base");
static_assert(offsetof(struct wire_header, reserved) == 52, "reserved");
static_assert(offsetof(struct wire_header, check) == 60, "check");

struct wire_ack {
    uint8_t kind;
    uint8_t reserved[3];
    uint8_t object[4];
    uint8_t generation[4];
    uint8_t reserved_too[4];
    uint8_t offset[8];
    uint8_t value[8];
};

static_assert(sizeof(struct wire_ack) == NC_FRAME_ACK_BYTES, "ack");
static_assert(offsetof(struct wire_ack, object) == 4, "object");
static_assert(offsetof(struct wire_ack, generation) == 8, "generation");
static_assert(offsetof(struct wire_ack, offset) == 16, "offset");
static_assert(offsetof(struct wire_ack, value) == 24, "value");

/* A chunk of the largest size still fits in a size_t and in the int of libcrypto. */
static_assert(NC_FRAME_MAX_CHUNK + NC_FRAME_CHECKSUM_BYTES < INT32_MAX, "NC_FRAME_MAX_CHUNK");

static void put32(uint8_t *bytes, uint32_t value)
{
    for (size_t i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> (24 - 8 * i));
}

static void put64(uint8_t *bytes, uint64_t value)
{
    put32(bytes, (uint32_t)(value >> 32));
    put32(bytes + 4, (uint32_t)value);
}

static uint32_t get32(const uint8_t *bytes)
{
    uint32_t value = 0;

    for (size_t i = 0; i < 4; i++)
        value = value << 8 | bytes[i];
    return value;
}

static uint64_t get64(const uint8_t *bytes)
{
    return (uint64_t)get32(bytes) << 32 | get32(bytes + 4);
}

static int any(const uint8_t *bytes, size_t size)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < size; i++)
        sum |= bytes[i];
    return sum != 0;
}

void nc_frame_write(const struct nc_frame *frame, uint32_t seed,
                    uint8_t ret_header[NC_FRAME_HEADER_BYTES])
{
    struct wire_header wire;

    memset(&wire, 0, sizeof wire);
    put32(wire.magic, NC_FRAME_MAGIC);
    wire.version = NC_FRAME_VERSION;
    wire.type = frame->type;
    wire.flags = frame->flags;
    wire.codec = frame->codec;
    put32(wire.stream, frame->stream);
    put32(wire.epoch, frame->epoch);
    put64(wire.sequence, frame->sequence);
    put32(wire.object, frame->object);
    put32(wire.generation, frame->generation);
    put64(wire.offset, frame->offset);
    put32(wire.raw_size, frame->raw_size);
    put32(wire.wire_size, frame->wire_size);
    put32(wire.base, frame->base);
    put32(wire.check, nc_crc32(seed, &wire, offsetof(struct wire_header, check)));
    memcpy(ret_header, &wire, sizeof wire);
}

/* The rules of each type. NULL, or what is wrong. */
static const char *fault_of_hello(const struct nc_frame *frame)
{
    if (frame->wire_size != NC_FRAME_HELLO_PAYLOAD_BYTES || frame->raw_size != 0)
        return "a hello of another size";
    if (frame->epoch != 0 || frame->sequence != 0)
        return "a hello that is not the first frame";
    if (frame->object != 0 || frame->generation != 0 || frame->offset != 0)
        return "a hello that names an object";
    return NULL;
}

static const char *fault_of_content(const struct nc_frame *frame, uint32_t max_chunk)
{
    if (frame->raw_size == 0 || frame->raw_size > max_chunk || frame->raw_size > NC_FRAME_MAX_CHUNK)
        return "content of no bytes, or of more than was agreed";
    if (frame->codec == 0 && (frame->flags & NC_FRAME_DELTA) == 0) {
        if (frame->wire_size != frame->raw_size + NC_FRAME_CHECKSUM_BYTES)
            return "a payload that is not the content and its checksum";
    } else {
        uint32_t least = NC_FRAME_CHECKSUM_BYTES +
                         ((frame->flags & NC_FRAME_DELTA) != 0 ? NC_FRAME_DELTA_BYTES : 0);

        if (frame->wire_size <= least)
            return "coded content of no bytes";
        if (frame->wire_size > frame->raw_size + NC_FRAME_CHECKSUM_BYTES)
            return "coded content that is larger than the content";
    }
    if (frame->object == 0)
        return "content of no object";
    if (frame->offset > (uint64_t)INT64_MAX - frame->raw_size)
        return "content beyond the end of any file";
    return NULL;
}

static const char *fault_of_mark(const struct nc_frame *frame, uint32_t wire_size)
{
    if (frame->wire_size != wire_size || frame->raw_size != 0)
        return "a payload of another size than its type has";
    if (frame->object == 0)
        return "a mark in no object";
    if (frame->offset > INT64_MAX)
        return "a mark beyond the end of any file";
    return NULL;
}

static const char *fault_of_control(const struct nc_frame *frame, uint32_t least, uint32_t most,
                                    uint32_t unit)
{
    if (frame->wire_size < least || frame->wire_size > most || frame->wire_size % unit != 0 ||
        frame->raw_size != 0)
        return "a payload of another size than its type has";
    if (frame->object != 0 || frame->generation != 0 || frame->offset != 0)
        return "a control frame that names an object";
    return NULL;
}

static const char *fault_of(const struct nc_frame *frame, uint32_t max_chunk)
{
    if ((frame->flags & ~NC_FRAME_DELTA) != 0 ||
        (frame->flags != 0 && frame->type != NC_FRAME_DATA))
        return "unknown flags";
    if (frame->codec >= NC_FRAME_CODECS || (frame->codec != 0 && frame->type != NC_FRAME_DATA))
        return "an unknown codec";
    if ((frame->base != 0) != ((frame->flags & NC_FRAME_DELTA) != 0))
        return "a base without a delta, or a delta without a base";
    switch (frame->type) {
    case NC_FRAME_HELLO:
    case NC_FRAME_HELLO_ACK:
        return fault_of_hello(frame);
    case NC_FRAME_DATA:
    case NC_FRAME_SEGMENT:
        return fault_of_content(frame, max_chunk);
    case NC_FRAME_ZERO:
        return fault_of_mark(frame, NC_FRAME_ZERO_PAYLOAD_BYTES);
    case NC_FRAME_END:
        return fault_of_mark(frame, 0);
    case NC_FRAME_ACK:
        return fault_of_control(frame, NC_FRAME_ACK_BYTES, NC_FRAME_MAX_ACKS * NC_FRAME_ACK_BYTES,
                                NC_FRAME_ACK_BYTES);
    case NC_FRAME_BYE:
        return fault_of_control(frame, 0, 0, 1);
    default:
        return "an unknown type";
    }
}

int nc_frame_read(const uint8_t header[NC_FRAME_HEADER_BYTES], uint32_t seed, uint32_t max_chunk,
                  struct nc_frame *ret_frame, struct nc_err *err)
{
    struct wire_header wire;
    struct nc_frame frame;
    const char *fault;

    memcpy(&wire, header, sizeof wire);
    /* Magic and version come before the checksum: another version may keep it elsewhere. */
    if (get32(wire.magic) != NC_FRAME_MAGIC)
        return nc_err_set(err, NC_ERR_PROTOCOL, 0, "not a frame: it begins with %08x",
                          get32(wire.magic));
    if (wire.version != NC_FRAME_VERSION)
        return nc_err_set(err, NC_ERR_PROTOCOL, 0, "a frame of version %u, not %d", wire.version,
                          NC_FRAME_VERSION);
    if (get32(wire.check) != nc_crc32(seed, &wire, offsetof(struct wire_header, check)))
        return nc_err_set(err, NC_ERR_PROTOCOL, 0,
                          "a header whose checksum does not hold, or of another link");
    if (any(wire.reserved, sizeof wire.reserved))
        return nc_err_set(err, NC_ERR_PROTOCOL, 0, "a header whose reserved bytes are in use");
    memset(&frame, 0, sizeof frame);
    frame.type = wire.type;
    frame.flags = wire.flags;
    frame.codec = wire.codec;
    frame.stream = get32(wire.stream);
    frame.epoch = get32(wire.epoch);
    frame.sequence = get64(wire.sequence);
    frame.object = get32(wire.object);
    frame.generation = get32(wire.generation);
    frame.offset = get64(wire.offset);
    frame.raw_size = get32(wire.raw_size);
    frame.wire_size = get32(wire.wire_size);
    frame.base = get32(wire.base);
    fault = fault_of(&frame, max_chunk);
    if (fault != NULL)
        return nc_err_set(err, NC_ERR_PROTOCOL, 0, "%s (type %u, sizes %u and %u, offset %llu)",
                          fault, frame.type, frame.raw_size, frame.wire_size,
                          (unsigned long long)frame.offset);
    *ret_frame = frame;
    return NC_ERR_OK;
}

size_t nc_frame_trailer_bytes(const struct nc_frame *frame, int encrypted)
{
    if (encrypted || frame->type == NC_FRAME_HELLO || frame->type == NC_FRAME_HELLO_ACK)
        return NC_CRYPTO_TAG_BYTES;
    return frame->type == NC_FRAME_ACK || frame->type == NC_FRAME_ZERO || frame->codec != 0 ||
                   frame->flags != 0
               ? NC_FRAME_CHECKSUM_BYTES
               : 0;
}

void nc_frame_ack_write(const struct nc_frame_ack *ack, uint8_t ret_bytes[NC_FRAME_ACK_BYTES])
{
    struct wire_ack wire;

    memset(&wire, 0, sizeof wire);
    wire.kind = ack->kind;
    put32(wire.object, ack->object);
    put32(wire.generation, ack->generation);
    put64(wire.offset, ack->offset);
    put64(wire.value, ack->value);
    memcpy(ret_bytes, &wire, sizeof wire);
}

static int value_is_possible(const struct nc_frame_ack *ack)
{
    switch (ack->kind) {
    case NC_ACK_CHUNK:
    case NC_ACK_BASE:
        return ack->value >= 1 && ack->value <= NC_FRAME_MAX_CHUNK &&
               ack->offset <= (uint64_t)INT64_MAX - ack->value;
    case NC_ACK_SEGMENT:
        /* No bytes: the END of the byte stream arrived. */
        return ack->value <= NC_FRAME_MAX_CHUNK && ack->offset <= (uint64_t)INT64_MAX - ack->value;
    case NC_ACK_ZERO:
        return ack->value >= 1 && ack->value <= INT64_MAX &&
               ack->offset <= (uint64_t)INT64_MAX - ack->value;
    case NC_ACK_READ:
        return ack->value == 0;
    default:
        /* Numbers that this version does not know are read as SYSTEM. */
        return ack->value >= 1 && ack->value <= UINT16_MAX && ack->offset <= NC_ACK_MAX_ERRNO;
    }
}

int nc_frame_ack_read(const uint8_t bytes[NC_FRAME_ACK_BYTES], struct nc_frame_ack *ret_ack,
                      struct nc_err *err)
{
    struct wire_ack wire;
    struct nc_frame_ack ack;

    memcpy(&wire, bytes, sizeof wire);
    memset(&ack, 0, sizeof ack);
    ack.kind = wire.kind;
    ack.object = get32(wire.object);
    ack.generation = get32(wire.generation);
    ack.offset = get64(wire.offset);
    ack.value = get64(wire.value);
    if (ack.kind < NC_ACK_CHUNK || ack.kind >= NC_ACK_MAX)
        return nc_err_set(err, NC_ERR_PROTOCOL, 0, "an acknowledgement of kind %u", ack.kind);
    if (any(wire.reserved, sizeof wire.reserved) ||
        any(wire.reserved_too, sizeof wire.reserved_too))
        return nc_err_set(err, NC_ERR_PROTOCOL, 0,
                          "an acknowledgement whose reserved bytes are in use");
    if (ack.object == 0)
        return nc_err_set(err, NC_ERR_PROTOCOL, 0, "an acknowledgement of no object");
    if (ack.offset > INT64_MAX || !value_is_possible(&ack))
        return nc_err_set(err, NC_ERR_PROTOCOL, 0,
                          "an acknowledgement of kind %u at %llu with %llu", ack.kind,
                          (unsigned long long)ack.offset, (unsigned long long)ack.value);
    *ret_ack = ack;
    return NC_ERR_OK;
}

uint64_t nc_frame_error_number(int code)
{
    switch (code) {
#define X(name, number)                                                                            \
    case NC_ERR_##name:                                                                            \
        return number;
        NC_FRAME_ERRORS(X)
#undef X
    default:
        return nc_frame_error_number(NC_ERR_SYSTEM);
    }
}

int nc_frame_error_code(uint64_t number)
{
    switch (number) {
#define X(name, number)                                                                            \
    case number:                                                                                   \
        return NC_ERR_##name;
        NC_FRAME_ERRORS(X)
#undef X
    default:
        return NC_ERR_SYSTEM;
    }
}

/* --- Key schedule ---------------------------------------------------------------------------- */

#define KEY_LABEL "novacron amst v3 key"
#define SEED_LABEL "novacron amst v3 seed"

int nc_frame_key(const uint8_t secret[NC_CRYPTO_HASH_BYTES],
                 const uint8_t context[NC_CRYPTO_HASH_BYTES], int direction, uint32_t stream,
                 uint32_t epoch, struct nc_frame_key *ret_key, struct nc_err *err)
{
    struct {
        uint8_t label[sizeof KEY_LABEL - 1];
        uint8_t context[NC_CRYPTO_HASH_BYTES];
        uint8_t direction;
        uint8_t stream[4];
        uint8_t epoch[4];
    } info;

    static_assert(sizeof info == 20 + 32 + 1 + 4 + 4, "info");
    static_assert(sizeof *ret_key == NC_CRYPTO_KEY_BYTES + NC_CRYPTO_NONCE_BYTES, "nc_frame_key");
    if (direction != 0 && direction != 1)
        return nc_err_set(err, NC_ERR_INVALID, 0, "direction %d", direction);
    memcpy(info.label, KEY_LABEL, sizeof info.label);
    memcpy(info.context, context, sizeof info.context);
    info.direction = (uint8_t)direction;
    put32(info.stream, stream);
    put32(info.epoch, epoch);
    /* The struct is the expansion: key first, then iv, nothing between. */
    return nc_hkdf_expand(secret, &info, sizeof info, (uint8_t *)ret_key, sizeof *ret_key, err);
}

int nc_frame_seed(const uint8_t secret[NC_CRYPTO_HASH_BYTES],
                  const uint8_t context[NC_CRYPTO_HASH_BYTES], uint32_t *ret_seed,
                  struct nc_err *err)
{
    uint8_t info[sizeof SEED_LABEL - 1 + NC_CRYPTO_HASH_BYTES];
    uint8_t seed[4];
    int code;

    memcpy(info, SEED_LABEL, sizeof SEED_LABEL - 1);
    memcpy(info + sizeof SEED_LABEL - 1, context, NC_CRYPTO_HASH_BYTES);
    code = nc_hkdf_expand(secret, info, sizeof info, seed, sizeof seed, err);
    if (code == NC_ERR_OK)
        *ret_seed = get32(seed);
    return code;
}
