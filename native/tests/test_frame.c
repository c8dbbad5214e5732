#include "nc_frame.h"

#include <stdlib.h>

#include "check.h"
#include "nc_crc.h"
#include "nc_err.h"

#define SEED 0x5eed5eedu
#define CHUNK (1024u * 1024)

static const struct nc_frame data = {.type = NC_FRAME_DATA,
                                     .stream = 0x01020304,
                                     .epoch = 0x05060708,
                                     .sequence = 0x1112131415161718,
                                     .object = 0x21222324,
                                     .generation = 0x25262728,
                                     .offset = 0x3132333435363738,
                                     .raw_size = 0x41424,
                                     .wire_size = 0x41428};

static int reads(const struct nc_frame *frame)
{
    uint8_t header[NC_FRAME_HEADER_BYTES];
    uint8_t again[NC_FRAME_HEADER_BYTES];
    struct nc_frame read;
    struct nc_err err = {0};
    int code;

    memset(&read, 0xee, sizeof read);
    nc_frame_write(frame, SEED, header);
    code = nc_frame_read(header, SEED, CHUNK, &read, &err);
    if (code == NC_ERR_OK) {
        nc_frame_write(&read, SEED, again);
        CHECK(memcmp(header, again, sizeof header) == 0);
    } else {
        CHECK(code == NC_ERR_PROTOCOL);
        CHECK(err.reason[0] != '\0');
        CHECK(read.type == 0xee && read.base == 0xeeeeeeee);
    }
    return code == NC_ERR_OK;
}

static void the_bytes_of_a_header_are_these(void)
{
    static const uint8_t expected[60] = {
        'N',  'C',  'A',  '3',  3,    3,    0,    0,    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07,
        0x08, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26,
        0x27, 0x28, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x00, 0x04, 0x14, 0x24, 0x00,
        0x04, 0x14, 0x28, 0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,
    };
    uint8_t header[NC_FRAME_HEADER_BYTES];
    uint32_t check;

    nc_frame_write(&data, SEED, header);
    CHECK(memcmp(header, expected, sizeof expected) == 0);
    check = nc_crc32(SEED, expected, sizeof expected);
    CHECK(header[60] == check >> 24 && header[61] == (check >> 16 & 0xff));
    CHECK(header[62] == (check >> 8 & 0xff) && header[63] == (check & 0xff));
    CHECK(reads(&data));
}

static void a_flipped_bit_or_another_seed_is_refused_wherever_it_is(void)
{
    uint8_t header[NC_FRAME_HEADER_BYTES];
    struct nc_frame read;
    struct nc_err err = {0};

    nc_frame_write(&data, SEED, header);
    for (size_t bit = 0; bit < 8 * sizeof header; bit++) {
        header[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(nc_frame_read(header, SEED, CHUNK, &read, &err) == NC_ERR_PROTOCOL);
        header[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    CHECK(nc_frame_read(header, SEED + 1, CHUNK, &read, &err) == NC_ERR_PROTOCOL);
    CHECK(strstr(err.reason, "another link") != NULL);
    CHECK(nc_frame_read(header, SEED, data.raw_size, &read, &err) == NC_ERR_OK);
    CHECK(nc_frame_read(header, SEED, data.raw_size - 1, &read, &err) == NC_ERR_PROTOCOL);
    CHECK(nc_frame_read(header, SEED, CHUNK, &read, NULL) == NC_ERR_OK);
}

static void reserved_bits_are_refused_although_the_checksum_holds(void)
{
    for (size_t place = 52; place < 60; place++) {
        uint8_t header[NC_FRAME_HEADER_BYTES];
        struct nc_frame read;
        struct nc_err err = {0};
        uint32_t check;

        nc_frame_write(&data, SEED, header);
        header[place] = 1;
        check = nc_crc32(SEED, header, 60);
        for (size_t i = 0; i < 4; i++)
            header[60 + i] = (uint8_t)(check >> (24 - 8 * i));
        CHECK(nc_frame_read(header, SEED, CHUNK, &read, &err) == NC_ERR_PROTOCOL);
        CHECK(strstr(err.reason, "reserved") != NULL);
    }
}

/* A frame of `type` that is as it has to be. */
static struct nc_frame good(uint8_t type)
{
    struct nc_frame frame = {.type = type, .stream = 5, .epoch = 1, .sequence = 9};

    switch (type) {
    case NC_FRAME_HELLO:
    case NC_FRAME_HELLO_ACK:
        frame.epoch = 0;
        frame.sequence = 0;
        frame.wire_size = 32;
        break;
    case NC_FRAME_DATA:
    case NC_FRAME_SEGMENT:
        frame.object = 1;
        frame.raw_size = 100;
        frame.wire_size = 104;
        break;
    case NC_FRAME_ZERO:
        frame.object = 1;
        frame.wire_size = 8;
        break;
    case NC_FRAME_ACK:
        frame.wire_size = 32;
        break;
    case NC_FRAME_END:
        frame.object = 1;
        break;
    }
    return frame;
}

/* The rest is a statement that changes `frame`. */
#define ACCEPTED(type, ...)                                                                        \
    do {                                                                                           \
        struct nc_frame frame = good(type);                                                        \
        __VA_ARGS__;                                                                               \
        CHECK(reads(&frame));                                                                      \
    } while (0)
#define REFUSED(type, ...)                                                                         \
    do {                                                                                           \
        struct nc_frame frame = good(type);                                                        \
        __VA_ARGS__;                                                                               \
        CHECK(!reads(&frame));                                                                     \
    } while (0)

static void each_type_has_its_rules(void)
{
    REFUSED(0, );
    REFUSED(NC_FRAME_MAX, );
    REFUSED(255, );
    for (uint8_t type = NC_FRAME_HELLO; type < NC_FRAME_MAX; type++) {
        ACCEPTED(type, );
        ACCEPTED(type, frame.stream = UINT32_MAX);
        REFUSED(type, frame.flags = 1);
        REFUSED(type, frame.flags = 2);
        REFUSED(type, frame.codec = NC_FRAME_CODECS);
        REFUSED(type, frame.base = 1);
        if (type == NC_FRAME_DATA) {
            ACCEPTED(type, frame.codec = 1);
            ACCEPTED(type, frame.codec = 2; frame.wire_size = 5);
            REFUSED(type, frame.codec = 2; frame.wire_size = 4);
            REFUSED(type, frame.codec = 2; frame.wire_size = frame.raw_size + 5);
            ACCEPTED(type, frame.flags = 1; frame.base = 9; frame.wire_size = 13);
            REFUSED(type, frame.flags = 1; frame.base = 9; frame.wire_size = 12);
            ACCEPTED(type, frame.flags = 1; frame.base = 9; frame.codec = 1);
        } else {
            REFUSED(type, frame.codec = 1);
            REFUSED(type, frame.flags = 1; frame.base = 1);
        }
        REFUSED(type, frame.wire_size += 1);
        REFUSED(type, frame.wire_size -= 1);
        REFUSED(type, frame.raw_size += 1);
        REFUSED(type, frame.offset = UINT64_MAX);
        REFUSED(type, frame.offset = UINT64_C(1) << 63);
        if (good(type).object != 0) {
            ACCEPTED(type, frame.object = UINT32_MAX);
            ACCEPTED(type, frame.generation = UINT32_MAX);
            REFUSED(type, frame.object = 0);
        } else {
            REFUSED(type, frame.object = 1);
            REFUSED(type, frame.generation = 1);
            REFUSED(type, frame.offset = 1);
        }
    }
    for (uint8_t type = NC_FRAME_HELLO; type <= NC_FRAME_HELLO_ACK; type++) {
        REFUSED(type, frame.epoch = 1);
        REFUSED(type, frame.sequence = 1);
    }
}

static void content_ends_where_files_can(void)
{
    static const uint8_t types[] = {NC_FRAME_DATA, NC_FRAME_SEGMENT};

    for (size_t i = 0; i < sizeof types; i++) {
        ACCEPTED(types[i], frame.offset = (uint64_t)INT64_MAX - 100);
        REFUSED(types[i], frame.offset = (uint64_t)INT64_MAX - 99);
        ACCEPTED(types[i], frame.raw_size = 1; frame.wire_size = 5);
        REFUSED(types[i], frame.raw_size = 0; frame.wire_size = 4);
        ACCEPTED(types[i], frame.raw_size = CHUNK; frame.wire_size = CHUNK + 4);
        REFUSED(types[i], frame.raw_size = CHUNK + 1; frame.wire_size = CHUNK + 5);
        REFUSED(types[i], frame.raw_size = UINT32_MAX; frame.wire_size = 3);
    }
    ACCEPTED(NC_FRAME_ZERO, frame.offset = INT64_MAX);
    ACCEPTED(NC_FRAME_END, frame.offset = INT64_MAX);
    ACCEPTED(NC_FRAME_END, frame.offset = 0);
}

/* Whatever the caller allows, the largest chunk of the protocol holds. */
static void no_agreement_goes_over_the_largest_chunk(void)
{
    uint8_t header[NC_FRAME_HEADER_BYTES];
    struct nc_frame frame = good(NC_FRAME_DATA);
    struct nc_frame read;
    struct nc_err err = {0};

    frame.raw_size = NC_FRAME_MAX_CHUNK;
    frame.wire_size = frame.raw_size + 4;
    nc_frame_write(&frame, SEED, header);
    CHECK(nc_frame_read(header, SEED, UINT32_MAX, &read, &err) == NC_ERR_OK);
    frame.raw_size++;
    frame.wire_size++;
    nc_frame_write(&frame, SEED, header);
    CHECK(nc_frame_read(header, SEED, UINT32_MAX, &read, &err) == NC_ERR_PROTOCOL);
}

static void acknowledgements_come_by_the_dozen(void)
{
    ACCEPTED(NC_FRAME_ACK, frame.wire_size = 127 * 32);
    REFUSED(NC_FRAME_ACK, frame.wire_size = 128 * 32);
    REFUSED(NC_FRAME_ACK, frame.wire_size = 0);
    REFUSED(NC_FRAME_ACK, frame.wire_size = 48);
    CHECK(NC_FRAME_MAX_ACKS * NC_FRAME_ACK_BYTES <= NC_FRAME_MAX_CONTROL);
}

static int ack_reads(struct nc_frame_ack ack)
{
    uint8_t bytes[NC_FRAME_ACK_BYTES];
    uint8_t again[NC_FRAME_ACK_BYTES];
    struct nc_frame_ack read;
    struct nc_err err = {0};
    int code;

    memset(&read, 0xee, sizeof read);
    nc_frame_ack_write(&ack, bytes);
    code = nc_frame_ack_read(bytes, &read, &err);
    if (code == NC_ERR_OK) {
        nc_frame_ack_write(&read, again);
        CHECK(memcmp(bytes, again, sizeof bytes) == 0);
    } else {
        CHECK(code == NC_ERR_PROTOCOL && read.kind == 0xee);
    }
    return code == NC_ERR_OK;
}

#define ACK(...) ack_reads((struct nc_frame_ack){__VA_ARGS__})

static void acknowledgements_have_their_rules(void)
{
    static const uint8_t expected[32] = {4, 0, 0, 0, 0, 0, 1, 2, 0, 0, 3, 4, 0, 0, 0, 0,
                                         0, 0, 0, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0, 0};
    const struct nc_frame_ack ack = {
        .kind = NC_ACK_READ, .object = 0x102, .generation = 0x304, .offset = 0x506070809};
    uint8_t bytes[NC_FRAME_ACK_BYTES];
    struct nc_frame_ack read;

    nc_frame_ack_write(&ack, bytes);
    CHECK(memcmp(bytes, expected, sizeof bytes) == 0);
    for (size_t place = 1; place < 16; place++) {
        if (place >= 4 && place < 12)
            continue;
        bytes[place] = 1;
        CHECK(nc_frame_ack_read(bytes, &read, NULL) == NC_ERR_PROTOCOL);
        bytes[place] = 0;
    }
    CHECK(!ACK(.kind = 0, .object = 1, .value = 1));
    CHECK(!ACK(.kind = NC_ACK_MAX, .object = 1, .value = 1));
    for (uint8_t kind = NC_ACK_CHUNK; kind < NC_ACK_MAX; kind++) {
        uint64_t value = kind == NC_ACK_READ ? 0 : 1;

        CHECK(ACK(.kind = kind, .object = 1, .value = value));
        CHECK(ACK(.kind = kind, .object = UINT32_MAX, .generation = UINT32_MAX, .value = value));
        CHECK(!ACK(.kind = kind, .object = 0, .value = value));
        CHECK(ACK(.kind = kind, .object = 1, .value = !value) == (kind == NC_ACK_SEGMENT));
        CHECK(!ACK(.kind = kind, .object = 1, .value = value, .offset = UINT64_MAX));
    }
    CHECK(ACK(.kind = NC_ACK_CHUNK, .object = 1, .value = NC_FRAME_MAX_CHUNK));
    CHECK(!ACK(.kind = NC_ACK_CHUNK, .object = 1, .value = NC_FRAME_MAX_CHUNK + 1));
    CHECK(ACK(.kind = NC_ACK_SEGMENT, .object = 1, .value = 2, .offset = INT64_MAX - 2));
    CHECK(!ACK(.kind = NC_ACK_SEGMENT, .object = 1, .value = 2, .offset = INT64_MAX - 1));
    CHECK(ACK(.kind = NC_ACK_ZERO, .object = 1, .value = INT64_MAX));
    CHECK(!ACK(.kind = NC_ACK_ZERO, .object = 1, .value = INT64_MAX, .offset = 1));
    CHECK(!ACK(.kind = NC_ACK_ZERO, .object = 1, .value = UINT64_MAX));
    CHECK(ACK(.kind = NC_ACK_READ, .object = 1, .offset = INT64_MAX));
    CHECK(ACK(.kind = NC_ACK_REFUSED, .object = 1, .value = UINT16_MAX));
    CHECK(!ACK(.kind = NC_ACK_REFUSED, .object = 1, .value = UINT16_MAX + 1));
    CHECK(ACK(.kind = NC_ACK_REFUSED, .object = 1, .value = 1, .offset = 4095));
    CHECK(!ACK(.kind = NC_ACK_REFUSED, .object = 1, .value = 1, .offset = 4096));
    CHECK(!ACK(.kind = NC_ACK_SEGMENT, .object = 1, .offset = UINT64_C(1) << 63));
}

static void error_numbers_of_the_wire_are_not_those_of_a_build(void)
{
    CHECK(nc_frame_error_number(NC_ERR_SYSTEM) == 1);
    CHECK(nc_frame_error_number(NC_ERR_NOT_FOUND) == 6);
    CHECK(nc_frame_error_number(NC_ERR_TIMEOUT) == 11);
    CHECK(nc_frame_error_number(NC_ERR_OK) == 1);
    CHECK(nc_frame_error_number(-1) == 1);
    CHECK(nc_frame_error_code(0) == NC_ERR_SYSTEM);
    CHECK(nc_frame_error_code(UINT64_MAX) == NC_ERR_SYSTEM);
    for (int code = NC_ERR_OK + 1; code < NC_ERR_MAX; code++)
        CHECK(nc_frame_error_code(nc_frame_error_number(code)) == code);
}

static void every_direction_stream_and_epoch_has_a_key_of_its_own(void)
{
    static const uint8_t secret[NC_CRYPTO_HASH_BYTES] = {1};
    static const uint8_t context[NC_CRYPTO_HASH_BYTES] = {2};
    struct nc_frame_key keys[8];
    struct nc_err err = {0};
    uint32_t seed = 0;
    uint32_t other = 0;

    for (uint32_t i = 0; i < 8; i++)
        CHECK(nc_frame_key(secret, context, (int)(i & 1), i >> 1 & 1, i >> 2, &keys[i], &err) ==
              NC_ERR_OK);
    for (size_t i = 0; i < 8; i++) {
        for (size_t j = 0; j < i; j++) {
            CHECK(memcmp(keys[i].key, keys[j].key, sizeof keys[i].key) != 0);
            CHECK(memcmp(keys[i].iv, keys[j].iv, sizeof keys[i].iv) != 0);
        }
    }
    CHECK(nc_frame_key(secret, context, 2, 0, 0, &keys[0], &err) == NC_ERR_INVALID);
    CHECK(nc_frame_seed(secret, context, &seed, &err) == NC_ERR_OK);
    CHECK(nc_frame_seed(context, context, &other, &err) == NC_ERR_OK && other != seed);
    CHECK(nc_frame_seed(secret, secret, &other, &err) == NC_ERR_OK && other != seed);
}

int main(void)
{
    the_bytes_of_a_header_are_these();
    a_flipped_bit_or_another_seed_is_refused_wherever_it_is();
    reserved_bits_are_refused_although_the_checksum_holds();
    each_type_has_its_rules();
    content_ends_where_files_can();
    no_agreement_goes_over_the_largest_chunk();
    acknowledgements_come_by_the_dozen();
    acknowledgements_have_their_rules();
    error_numbers_of_the_wire_are_not_those_of_a_build();
    every_direction_stream_and_epoch_has_a_key_of_its_own();
    return CHECK_RESULT;
}
