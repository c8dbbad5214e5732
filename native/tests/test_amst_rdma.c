/* The engine over channels of the false library: instead of TCP, beside it, and until they fail. */
#include "amst_pair.h"

#include <dlfcn.h>

#include "../src/nc_rdma_private.h"
#include "rdma_pair.h"

#define SLOT_BYTES (1024u * 1024 + 4096) /* the link's largest chunk, and its frame */

static void (*raise_event)(int);

/* What moves in one direction. */
struct load {
    uint8_t *from;
    uint8_t *to;
    size_t size;
    struct nc_amst_object *sent;
    struct nc_amst_object *received;
};

static void join(struct engines *pair, struct nc_rdma *rdma, uint32_t slots, uint32_t id)
{
    struct nc_rdma_channel *channels[2];
    struct nc_rdma_peer peers[2];
    struct nc_err err = {0};

    for (int i = 0; i < 2; i++) {
        CHECK(nc_rdma_channel_open(rdma, slots, SLOT_BYTES, &channels[i], &err) == NC_ERR_OK);
        nc_rdma_channel_local(channels[i], &peers[i]);
    }
    for (int i = 0; i < 2; i++)
        CHECK(nc_rdma_channel_connect(channels[i], &peers[1 - i], &err) == NC_ERR_OK);
    CHECK(nc_amst_link_rdma(pair->b.link, channels[1], id, &err) == NC_ERR_OK);
    CHECK(nc_amst_link_rdma(pair->a.link, channels[0], id, &err) == NC_ERR_OK);
}

static struct nc_rdma *device(void)
{
    struct nc_rdma *rdma = NULL;
    struct nc_err err = {0};

    if (open_rdma("rxe0", &rdma, &err) != NC_ERR_OK) {
        (void)fprintf(stderr, "no device: %s\n", err.reason);
        exit(1);
    }
    return rdma;
}

static void start(struct load *load, struct end *sender, struct end *receiver, size_t size,
                  uint64_t limit_bps)
{
    struct nc_err err = {0};
    struct nc_amst_target target = {.number = 3, .fd = -1, .size = size, .chunk = CHUNK};
    struct nc_amst_source source = {
        .number = 3, .fd = -1, .size = size, .chunk = CHUNK, .stable = 1, .limit_bps = limit_bps};

    load->size = size;
    load->from = malloc(size);
    load->to = calloc(1, size);
    fill(load->from, size, (uint32_t)(uintptr_t)load);
    target.memory = load->to;
    source.memory = load->from;
    CHECK(nc_amst_receive(receiver->link, &target, &load->received, &err) == NC_ERR_OK);
    CHECK(nc_amst_send(sender->link, &source, &load->sent, &err) == NC_ERR_OK);
}

static void finish(struct load *load, struct end *sender, struct end *receiver)
{
    struct nc_amst_object_info info;

    CHECK(memcmp(load->from, load->to, load->size) == 0);
    nc_amst_object_info(load->received, &info);
    CHECK(info.done_bytes == load->size && info.code == NC_ERR_OK);
    end_object(sender, load->sent);
    end_object(receiver, load->received);
    free(load->from);
    free(load->to);
}

/* The device is closed while its channels are in use: it goes with the last of them. */
static void move_both_ways(int encrypt, uint32_t slots, unsigned channels, unsigned connections)
{
    struct engines pair;
    struct nc_rdma *rdma = device();
    struct load there;
    struct load back;
    unsigned streams = channels + connections;

    open_engines(&pair, encrypt, 2);
    /* A channel takes longer to agree on than a connection: its id comes late. */
    for (unsigned i = 0; i < connections; i++)
        (void)add_stream(&pair, channels + 1 + i);
    for (unsigned i = 0; i < channels; i++)
        join(&pair, rdma, slots, 1 + i);
    nc_rdma_close(rdma);
    CHECK(await(&pair.a, NC_AMST_STREAM_UP, streams) && await(&pair.b, NC_AMST_STREAM_UP, streams));
    start(&there, &pair.a, &pair.b, 300 * CHUNK + 17, 0);
    start(&back, &pair.b, &pair.a, 300 * CHUNK, 0);
    CHECK(await(&pair.a, NC_AMST_OBJECT_DONE, 2) && await(&pair.b, NC_AMST_OBJECT_DONE, 2));
    CHECK(pair.a.seen[NC_AMST_STREAM_LOST] == 0 && pair.b.seen[NC_AMST_STREAM_LOST] == 0);
    finish(&there, &pair.a, &pair.b);
    finish(&back, &pair.b, &pair.a);
    close_engines(&pair);
}

static void carry_pipes(int encrypt)
{
    struct engines pair;
    struct nc_rdma *rdma = device();
    size_t size = 4u * 1024 * 1024 + 3;

    open_engines(&pair, encrypt, 2);
    join(&pair, rdma, 4, 1);
    pump(&pair, size);
    pump(&pair, 0);
    pump(&pair, 5);
    close_engines(&pair);
    nc_rdma_close(rdma);
}

static void say_goodbye(int encrypt)
{
    struct engines pair;
    struct nc_rdma *rdma = device();
    struct load there;
    struct nc_err err = {0};

    open_engines(&pair, encrypt, 2);
    join(&pair, rdma, 4, 1);
    start(&there, &pair.a, &pair.b, 100 * CHUNK, 0);
    CHECK(await(&pair.a, NC_AMST_STREAM_UP, 1));
    CHECK(nc_amst_link_retire(pair.a.link, 1, &err) == NC_ERR_OK);
    /* What was under way arrives before; the rest waits for another stream. */
    CHECK(await(&pair.a, NC_AMST_STREAM_CLOSED, 1) && await(&pair.b, NC_AMST_STREAM_CLOSED, 1));
    join(&pair, rdma, 4, 2);
    CHECK(await(&pair.a, NC_AMST_OBJECT_DONE, 1) && await(&pair.b, NC_AMST_OBJECT_DONE, 1));
    CHECK(pair.a.seen[NC_AMST_STREAM_LOST] == 0 && pair.b.seen[NC_AMST_STREAM_LOST] == 0);
    finish(&there, &pair.a, &pair.b);
    close_engines(&pair);
    nc_rdma_close(rdma);
}

static void fall_back(int encrypt, int beside)
{
    struct engines pair;
    struct nc_rdma *rdma = device();
    struct load there;
    struct load back;
    struct nc_amst_object_info info = {0};

    open_engines(&pair, encrypt, 2);
    join(&pair, rdma, 4, 1);
    if (beside)
        (void)add_stream(&pair, 2);
    start(&there, &pair.a, &pair.b, 400 * CHUNK, 4u * 1024 * 1024);
    start(&back, &pair.b, &pair.a, 400 * CHUNK + 1, 4u * 1024 * 1024);
    for (int i = 0; i < PATIENCE_MS && info.done_bytes < 20 * CHUNK; i++) {
        (void)usleep(1000);
        nc_amst_object_info(there.received, &info);
    }
    CHECK(info.done_bytes >= 20 * CHUNK && info.done_bytes < there.size);
    raise_event(IBV_EVENT_DEVICE_FATAL);
    CHECK(await(&pair.a, NC_AMST_STREAM_LOST, 1) && await(&pair.b, NC_AMST_STREAM_LOST, 1));
    /* The end that hears of it second may see its queue pair fail first. */
    CHECK(strstr(pair.a.why, "rxe0") != NULL && strstr(pair.b.why, "rxe0") != NULL);
    CHECK(strstr(pair.a.why, "must be reset") != NULL ||
          strstr(pair.b.why, "must be reset") != NULL);
    nc_amst_object_limit(there.sent, 0);
    nc_amst_object_limit(back.sent, 0);
    if (!beside)
        (void)add_stream(&pair, 2);
    CHECK(await(&pair.a, NC_AMST_OBJECT_DONE, 2) && await(&pair.b, NC_AMST_OBJECT_DONE, 2));
    finish(&there, &pair.a, &pair.b);
    finish(&back, &pair.b, &pair.a);
    close_engines(&pair);
    nc_rdma_close(rdma);
}

static void refuse_what_cannot_be_a_stream(void)
{
    struct engines pair;
    struct nc_rdma *rdma = device();
    struct nc_rdma_channel *channel;
    struct nc_err err = {0};

    open_engines(&pair, 1, 1);
    (void)add_stream(&pair, 3);
    join(&pair, rdma, 4, 1);
    for (uint32_t id = 1; id <= 3; id += 2) {
        CHECK(nc_rdma_channel_open(rdma, 4, SLOT_BYTES, &channel, &err) == NC_ERR_OK);
        CHECK(nc_amst_link_rdma(pair.b.link, channel, id, &err) == NC_ERR_DENIED);
    }
    CHECK(nc_rdma_channel_open(rdma, 4, 1024u * 1024, &channel, &err) == NC_ERR_OK);
    CHECK(nc_amst_link_rdma(pair.b.link, channel, 4, &err) == NC_ERR_INVALID);
    CHECK_TEXT(err.reason, "slots of 1048576 bytes for frames of up to 1048660");
    close_engines(&pair);
    nc_rdma_close(rdma);
}

int main(void)
{
    void *library = dlopen(FAKE, RTLD_NOW);
    struct nc_err err;

    if (library == NULL || nc_crypto_load(NULL, &err) != NC_ERR_OK)
        return 1;
    find(library, "fake_verbs_raise", &raise_event);
    set_fault("");
    for (int encrypt = 0; encrypt < 2; encrypt++) {
        move_both_ways(encrypt, 2, 1, 0);
        move_both_ways(encrypt, 32, 1, 0);
        move_both_ways(encrypt, 4, 2, 2);
        carry_pipes(encrypt);
        say_goodbye(encrypt);
        fall_back(encrypt, 0);
        fall_back(encrypt, 1);
    }
    refuse_what_cannot_be_a_stream();
    (void)dlclose(library);
    return CHECK_RESULT;
}
