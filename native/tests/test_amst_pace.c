/* How a link spreads what it sends: over its streams, over time, and between classes. */
#define _GNU_SOURCE

#include "amst_pair.h"

#include <stdbool.h>

#include "nc_crypto.h"

#define SIZE ((size_t)8 * 1024 * 1024)
/* Slow enough that what is compared is not over before it is looked at. */
#define SLOW_BPS ((uint64_t)16 * 1024 * 1024)
#define STREAMS 4

struct moving {
    uint8_t *from;
    uint8_t *to;
    size_t size;
    struct nc_amst_object *sent;
    struct nc_amst_object *received;
};

static void begin(struct engines *pair, struct moving *moving, uint32_t number, size_t size,
                  uint32_t priority)
{
    struct nc_err err = {0};

    moving->from = malloc(size);
    moving->to = calloc(1, size);
    moving->size = size;
    fill(moving->from, size, number);
    struct nc_amst_target target = {.tag = number,
                                    .number = number,
                                    .fd = -1,
                                    .memory = moving->to,
                                    .size = size,
                                    .chunk = CHUNK};
    struct nc_amst_source source = {.tag = number,
                                    .number = number,
                                    .fd = -1,
                                    .memory = moving->from,
                                    .size = size,
                                    .chunk = CHUNK,
                                    .priority = priority};
    CHECK(nc_amst_receive(pair->b.link, &target, &moving->received, &err) == NC_ERR_OK);
    CHECK(nc_amst_send(pair->a.link, &source, &moving->sent, &err) == NC_ERR_OK);
}

static uint64_t done(const struct moving *moving)
{
    struct nc_amst_object_info info;

    nc_amst_object_info(moving->sent, &info);
    return info.done_bytes;
}

static void end(struct engines *pair, struct moving *moving, bool whole)
{
    end_object(&pair->a, moving->sent);
    end_object(&pair->b, moving->received);
    /* Only now no thread has the memory any more. */
    if (whole)
        CHECK(memcmp(moving->from, moving->to, moving->size) == 0);
    free(moving->from);
    free(moving->to);
}

static void open_pair(struct engines *pair, unsigned streams)
{
    open_engines(pair, 1, 2);
    for (unsigned i = 1; i <= streams; i++)
        (void)add_stream(pair, i);
    CHECK(await(&pair->a, NC_AMST_STREAM_UP, streams));
}

/* Two classes that both have work share by their weights, whatever the number of objects. */
static void share_by_weight(void)
{
    struct engines pair;
    struct moving heavy;
    struct moving light[3];
    struct nc_err err = {0};
    uint64_t of_light = 0;

    open_pair(&pair, STREAMS);
    CHECK(nc_amst_link_weight(pair.a.link, NC_AMST_CLASS_MIGRATION, 4, &err) == NC_ERR_OK);
    CHECK(nc_amst_link_weight(pair.a.link, NC_AMST_CLASS_BULK, 1, &err) == NC_ERR_OK);
    /* Next to nothing, until all of them are there. */
    nc_amst_link_limit(pair.a.link, 1024);
    for (uint32_t i = 0; i < 3; i++)
        begin(&pair, &light[i], 10 + i, SIZE, 100);
    begin(&pair, &heavy, 1, SIZE, NC_AMST_CLASS_MIGRATION);
    nc_amst_link_limit(pair.a.link, SLOW_BPS);
    CHECK(await(&pair.a, NC_AMST_OBJECT_DONE, 1));
    CHECK(done(&heavy) == SIZE);
    for (unsigned i = 0; i < 3; i++) {
        of_light += done(&light[i]);
        CHECK(done(&light[i]) > 0); /* those of one class take turns */
    }
    /* A quarter, give or take what was sent before, and is under way. */
    CHECK(of_light > SIZE / 8 && of_light < SIZE / 2);
    end(&pair, &heavy, true);
    for (unsigned i = 0; i < 3; i++)
        end(&pair, &light[i], false);
    close_engines(&pair);
}

/* A class that had nothing to send gets no more than its share afterwards. */
static void catch_up_on_nothing(void)
{
    struct engines pair;
    struct moving early;
    struct moving late;
    struct nc_err err = {0};
    uint64_t before;

    open_pair(&pair, STREAMS);
    CHECK(nc_amst_link_weight(pair.a.link, NC_AMST_CLASS_MIGRATION, 1, &err) == NC_ERR_OK);
    nc_amst_link_limit(pair.a.link, SLOW_BPS);
    begin(&pair, &early, 1, 4 * SIZE, NC_AMST_CLASS_MIGRATION);
    for (int turn = 0; turn < PATIENCE_MS / 10 && done(&early) < SIZE; turn++)
        (void)usleep(10000);
    before = done(&early);
    CHECK(before >= SIZE && before < 4 * SIZE);
    begin(&pair, &late, 2, SIZE / 2, NC_AMST_CLASS_BULK);
    CHECK(await(&pair.a, NC_AMST_OBJECT_DONE, 1));
    CHECK(done(&early) - before > SIZE / 4);
    end(&pair, &late, false);
    end(&pair, &early, false);
    close_engines(&pair);
}

/* What is small and of class control waits neither for bulk nor for the debt bulk made. */
static void overtake(void)
{
    struct engines pair;
    struct moving bulk;
    struct moving urgent;

    open_pair(&pair, STREAMS);
    nc_amst_link_limit(pair.a.link, SLOW_BPS);
    begin(&pair, &bulk, 1, 8 * SIZE, NC_AMST_CLASS_BULK);
    begin(&pair, &urgent, 2, 4096, NC_AMST_CLASS_CONTROL);
    CHECK(await(&pair.a, NC_AMST_OBJECT_DONE, 1));
    CHECK(done(&urgent) == 4096 && done(&bulk) < 4 * SIZE);
    end(&pair, &urgent, true);
    end(&pair, &bulk, false);
    close_engines(&pair);
}

/* What the kernel may send on each of the sending end's sockets, in bytes a second; how many there
 * are, that differ from `wanted`. */
static unsigned paced_otherwise(const struct engines *pair, unsigned long wanted,
                                unsigned *ret_sockets)
{
    unsigned otherwise = 0;

    *ret_sockets = 0;
    for (int fd = 3; fd < 512; fd++) {
        struct sockaddr_in peer = {0};
        socklen_t size = sizeof peer;
        unsigned long pace = 0;
        socklen_t pace_size = sizeof pace;

        if (getpeername(fd, (struct sockaddr *)&peer, &size) != 0 || peer.sin_family != AF_INET ||
            peer.sin_port != pair->address.sin_port)
            continue;
        CHECK(getsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &pace, &pace_size) == 0);
        ++*ret_sockets;
        otherwise += pace != wanted;
    }
    return otherwise;
}

static void pace_each_stream(void)
{
    struct engines pair;
    struct moving bulk;
    struct nc_err err = {0};
    const unsigned long pace = 80ul * 1024 * 1024;
    unsigned sockets;

    open_pair(&pair, STREAMS);
    nc_amst_link_pace(pair.a.link, pace);
    CHECK(paced_otherwise(&pair, pace / STREAMS, &sockets) == 0 && sockets == STREAMS);
    /* One more, whose share comes from the others'; then one less. */
    (void)add_stream(&pair, STREAMS + 1);
    CHECK(await(&pair.a, NC_AMST_STREAM_UP, STREAMS + 1));
    CHECK(paced_otherwise(&pair, pace / (STREAMS + 1), &sockets) == 0 && sockets == STREAMS + 1);
    CHECK(nc_amst_link_retire(pair.a.link, 1, &err) == NC_ERR_OK);
    CHECK(await(&pair.a, NC_AMST_STREAM_CLOSED, 1));
    CHECK(paced_otherwise(&pair, pace / STREAMS, &sockets) == 0 && sockets == STREAMS);
    begin(&pair, &bulk, 1, SIZE, NC_AMST_CLASS_BULK);
    CHECK(await(&pair.a, NC_AMST_OBJECT_DONE, 1));
    end(&pair, &bulk, true);
    /* The one that sends alone may have all of it. */
    nc_amst_link_senders(pair.a.link, 1);
    CHECK(paced_otherwise(&pair, pace, &sockets) == 0);
    nc_amst_link_pace(pair.a.link, 0);
    CHECK(paced_otherwise(&pair, ~0ul, &sockets) == 0 && sockets == STREAMS);
    begin(&pair, &bulk, 2, SIZE, NC_AMST_CLASS_BULK);
    CHECK(await(&pair.a, NC_AMST_OBJECT_DONE, 2));
    end(&pair, &bulk, true);
    close_engines(&pair);
}

/* The streams of the sending end, by id. */
static uint64_t sent_by(struct engines *pair, uint32_t id, char *ret_congestion)
{
    struct nc_amst_stream_info streams[16];
    size_t count;

    nc_amst_link_streams(pair->a.link, streams, 16, &count);
    for (size_t i = 0; i < count; i++) {
        if (streams[i].id != id)
            continue;
        if (ret_congestion != NULL)
            memcpy(ret_congestion, streams[i].congestion, sizeof streams[i].congestion);
        CHECK(streams[i].sent_bytes == 0 || streams[i].acked_bytes >= streams[i].sent_bytes);
        return streams[i].sent_bytes;
    }
    return 0;
}

static void send_on_one_stream(void)
{
    struct engines pair;
    struct moving bulk;
    struct nc_err err = {0};

    open_pair(&pair, STREAMS);
    nc_amst_link_senders(pair.a.link, 1);
    begin(&pair, &bulk, 1, SIZE, NC_AMST_CLASS_BULK);
    CHECK(await(&pair.a, NC_AMST_OBJECT_DONE, 1));
    end(&pair, &bulk, true);
    CHECK(sent_by(&pair, 1, NULL) == SIZE);
    for (uint32_t id = 2; id <= STREAMS; id++)
        CHECK(sent_by(&pair, id, NULL) == 0);
    /* Where that one goes, the next one takes its place. */
    begin(&pair, &bulk, 2, SIZE, NC_AMST_CLASS_BULK);
    CHECK(nc_amst_link_retire(pair.a.link, 1, &err) == NC_ERR_OK);
    CHECK(await(&pair.a, NC_AMST_OBJECT_DONE, 2));
    end(&pair, &bulk, true);
    CHECK(sent_by(&pair, 2, NULL) > 0);
    CHECK(sent_by(&pair, 3, NULL) == 0 && sent_by(&pair, 4, NULL) == 0);
    /* All of them again. */
    nc_amst_link_senders(pair.a.link, 0);
    begin(&pair, &bulk, 3, 4 * SIZE, NC_AMST_CLASS_BULK);
    CHECK(await(&pair.a, NC_AMST_OBJECT_DONE, 3));
    end(&pair, &bulk, true);
    CHECK(sent_by(&pair, 3, NULL) + sent_by(&pair, 4, NULL) > 0);
    close_engines(&pair);
}

static void change_what_is_live(void)
{
    struct engines pair;
    struct moving bulk;
    struct nc_err err = {0};
    char name[16] = "";

    open_pair(&pair, 2);
    begin(&pair, &bulk, 1, SIZE, NC_AMST_CLASS_BULK);
    CHECK(nc_amst_link_congestion(pair.a.link, 1, "reno", &err) == NC_ERR_OK);
    (void)sent_by(&pair, 1, name);
    CHECK(strcmp(name, "reno") == 0);
    CHECK(nc_amst_link_congestion(pair.a.link, 7, "reno", &err) == NC_ERR_NOT_FOUND);
    CHECK(nc_amst_link_congestion(pair.a.link, 1, "nonesuch", &err) != NC_ERR_OK);
    CHECK(await(&pair.a, NC_AMST_OBJECT_DONE, 1));
    end(&pair, &bulk, true);
    CHECK(nc_amst_link_weight(pair.a.link, NC_AMST_CLASS_CONTROL, 1, &err) == NC_ERR_INVALID);
    CHECK(nc_amst_link_weight(pair.a.link, NC_AMST_CLASSES, 1, &err) == NC_ERR_INVALID);
    CHECK(nc_amst_link_weight(pair.a.link, NC_AMST_CLASS_BULK, 0, &err) == NC_ERR_INVALID);
    CHECK(nc_amst_link_weight(pair.a.link, NC_AMST_CLASS_BULK, 1001, &err) == NC_ERR_INVALID);
    close_engines(&pair);
}

int main(void)
{
    struct nc_err err;

    if (nc_crypto_load(NULL, &err) != NC_ERR_OK) {
        (void)fprintf(stderr, "no libcrypto: %s\n", err.reason);
        return 1;
    }
    share_by_weight();
    catch_up_on_nothing();
    overtake();
    pace_each_stream();
    send_on_one_stream();
    change_what_is_live();
    return CHECK_RESULT;
}
