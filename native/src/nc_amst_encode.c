/* How a chunk is encoded: zeros are found, what differs from a base is taken, and what is left goes
 * through the codec that gets it over soonest. Each step but the first may turn out not to pay, and
 * then the chunk is sent as it is. */
#include <endian.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nc_amst_internal.h"
#include "nc_codec.h"
#include "nc_crc.h"
#include "nc_delta.h"
#include "nc_zero.h"

/* A difference of more than this share of the chunk is not worth what it costs the receiver; the
 * codecs do better on the whole then (measured at 256 changed words a page). */
#define DELTA_WORTH(size) ((size) / 10 * 7)
/* A codec has to save this share. */
#define CODEC_WORTH(size) ((size) - (size) / 64)
/* Less than this is not given to a codec: it is one packet anyway. */
#define CODEC_LEAST 512
/* What is looked at to tell what content it is: so many pieces, spread over the chunk; shorter ones
 * where a chunk takes less than so long. */
#define SAMPLE_PIECES 4
#define SAMPLE_BYTES (16u * 1024)
#define SAMPLE_SHORT_BYTES (4u * 1024)
#define SAMPLE_SHORT_NS 5e6
/* Samples take this share of the time at most. A chunk without one of its own is taken for the
 * least compressible of the last few, so that content that varies does not have codecs try in vain.
 */
#define SAMPLE_SHARE 0.01
#define SAMPLE_LEAST_OF 4
/* A window of the chooser has this many chunks, unless it is this long. */
#define WINDOW_LONG_NS UINT64_C(1000000000)
#define WINDOW_CHUNKS 4
/* Share of the streams' time that they may have waited for the source or the receiver's window. */
#define HELD_SHARE 0.2
/* CPU time that encoding may take at once after a rest. */
#define BUDGET_BURST_NS 50e6
/* Changes of codec are kept for people, who cannot read more than this. */
#define CHANGES_APART_NS UINT64_C(200000000)
/* A piece of encoding that took this many times what is known was interrupted by something else. */
#define INTERRUPTED 4

void nc_encode_charge(struct nc_amst_object *object, enum nc_amst_stage stage, uint64_t ns)
{
    object->coded.cpu_ns[stage] += ns;
}

static void put32(uint8_t *at, uint32_t value)
{
    value = htobe32(value);
    memcpy(at, &value, sizeof value);
}

/* --- The CPU that may be used --- */

static bool budget_left(struct nc_amst *engine, uint64_t now_ns)
{
    double rate = engine->encode_cpu / 100.0;
    bool left = true;

    if (engine->encode_cpu == 0)
        return true;
    (void)pthread_mutex_lock(&engine->lock);
    engine->encode_ns += (double)(now_ns - engine->encode_at_ns) * rate;
    engine->encode_at_ns = now_ns;
    if (engine->encode_ns > BUDGET_BURST_NS)
        engine->encode_ns = BUDGET_BURST_NS;
    left = engine->encode_ns > 0;
    (void)pthread_mutex_unlock(&engine->lock);
    return left;
}

static void budget_take(struct nc_amst *engine, uint64_t cpu_ns)
{
    if (engine->encode_cpu == 0)
        return;
    (void)pthread_mutex_lock(&engine->lock);
    engine->encode_ns -= (double)cpu_ns;
    (void)pthread_mutex_unlock(&engine->lock);
}

/* --- The base --- */

/* The content itself in the ranges that the receiver holds, zeros elsewhere. False: it holds
 * nothing of this chunk. */
static bool lay_out(const struct nc_amst_object *object, uint64_t offset, const uint8_t *content,
                    size_t size, uint8_t *area)
{
    size_t low = 0;
    size_t high = object->held_count;
    uint64_t at = offset;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct nc_amst_range *range = &object->held[middle];

        if (range->offset + range->size <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == object->held_count || object->held[low].offset >= offset + size)
        return false;
    for (; low < object->held_count && object->held[low].offset < offset + size; low++) {
        const struct nc_amst_range *range = &object->held[low];
        uint64_t begin = range->offset > offset ? range->offset : offset;
        uint64_t end = range->offset + range->size;

        if (end > offset + size)
            end = offset + size;
        memset(area + (at - offset), 0, begin - at);
        memcpy(area + (begin - offset), content + (begin - offset), end - begin);
        at = end;
    }
    memset(area + (at - offset), 0, offset + size - at);
    return true;
}

static const uint8_t *base_of(struct nc_thread *thread, const struct nc_amst_object *object,
                              uint64_t offset, const uint8_t *content, size_t size)
{
    uint8_t *area;
    size_t have = 0;

    if (object->base != NULL)
        return object->base + offset;
    area = nc_thread_work(thread, NC_WORK_BASE);
    if (area == NULL)
        return NULL;
    if (object->base_fd < 0)
        return lay_out(object, offset, content, size, area) ? area : NULL;
    while (have < size) {
        ssize_t got = pread(object->base_fd, area + have, size - have, (off_t)(offset + have));

        if (got <= 0)
            return NULL; /* without a base the chunk is sent whole */
        have += (size_t)got;
    }
    return area;
}

/* Fills `coded` with the difference, behind the place of what says how it is to be read. */
static void take_delta(struct nc_thread *thread, const struct nc_amst_object *object,
                       uint64_t offset, const uint8_t *content, size_t size, struct nc_coded *coded)
{
    const uint8_t *base = base_of(thread, object, offset, content, size);
    uint8_t *area = base != NULL ? nc_thread_work(thread, NC_WORK_DELTA) : NULL;
    size_t delta;

    if (area == NULL || DELTA_WORTH(size) <= NC_FRAME_DELTA_BYTES)
        return;
    delta = nc_delta_encode(content, base, size, area + NC_FRAME_DELTA_BYTES,
                            DELTA_WORTH(size) - NC_FRAME_DELTA_BYTES);
    if (delta == 0)
        return;
    put32(area, nc_crc32(0, base, size));
    put32(area + 4, (uint32_t)delta);
    coded->data = area;
    coded->size = NC_FRAME_DELTA_BYTES + delta;
    coded->flags = NC_FRAME_DELTA;
    coded->base = object->base_id;
}

/* --- The codec --- */

static int sample(struct nc_thread *thread, unsigned codecs, const uint8_t *content, size_t size,
                  size_t piece)
{
    bool lz4 = (codecs & 1u << NC_CODEC_LZ4) != 0;
    uint8_t *area = nc_thread_work(thread, NC_WORK_CONTENT);
    uint8_t *out = nc_thread_work(thread, NC_WORK_CODED);
    struct nc_codec *codec = nc_thread_codec(thread);
    size_t taken = 0;
    size_t coded = 0;

    if (area == NULL || out == NULL || codec == NULL)
        return 0;
    if (size <= SAMPLE_PIECES * piece) {
        memcpy(area, content, size);
        taken = size;
    } else {
        for (size_t i = 0; i < SAMPLE_PIECES; i++) {
            memcpy(area + taken, content + i * (size / SAMPLE_PIECES), piece);
            taken += piece;
        }
    }
    if (nc_codec_encode(codec, lz4 ? NC_CODEC_LZ4 : NC_CODEC_ZSTD, lz4 ? 1 : -5, area, taken, out,
                        taken, &coded, NULL) != NC_ERR_OK)
        coded = 0;
    return nc_hde_class(taken, coded);
}

static void note_change(struct nc_amst_object *object, const struct nc_hde_chooser *chooser,
                        int content_class, int from, int to, int why, uint64_t now_ns)
{
    struct nc_amst_coding_info *info = &object->coded;
    uint64_t last = info->change_count == 0
                        ? 0
                        : info->changes[(info->change_count - 1) % NC_AMST_CHANGES].at_ns;
    const struct nc_hde_known *known = &chooser->known[content_class][to];

    if (info->change_count > 1 && now_ns - last < CHANGES_APART_NS)
        return; /* content that varies: each chunk has its own */
    info->changes[info->change_count++ % NC_AMST_CHANGES] = (struct nc_amst_change){
        .at_ns = now_ns,
        .from = from,
        .to = to,
        .why = why,
        .content_class = content_class,
        .link_bps = (uint64_t)(chooser->link * 1e9),
        .encode_bps = known->encode_ns > 0 ? (uint64_t)(1e9 / known->encode_ns) : 0,
        .ratio = known->ratio,
    };
}

static int least_class(const struct nc_amst_object *object)
{
    int least = NC_HDE_CLASSES - 1;

    for (uint32_t i = 0; i < object->samples && i < SAMPLE_LEAST_OF; i++)
        least = object->classes[i] < least ? object->classes[i] : least;
    return least;
}

/* The rung for this chunk, and the class of its content: the object's may be another one by the
 * time the chunk is encoded, since other threads take its chunks as well. */
static int choose(struct nc_stream *stream, struct nc_amst_object *object, const uint8_t *content,
                  size_t size, uint64_t now_ns, int *ret_class)
{
    struct nc_amst_link *link = stream->link;
    struct nc_hde_chooser *chooser = &link->chooser;
    uint32_t ladder =
        nc_hde_ladder(link->options.codecs, object->coding.level_min, object->coding.level_max);
    enum nc_hde_why why = NC_HDE_WHY_CONTENT;
    bool affordable = budget_left(link->engine, now_ns);
    double expected_ns;
    bool look;
    int class;
    int rung = NC_HDE_RAW;

    *ret_class = 0;
    if (ladder == 1u << NC_HDE_RAW)
        return NC_HDE_RAW;
    (void)pthread_mutex_lock(&link->lock);
    class = least_class(object);
    expected_ns =
        (double)size * chooser->cores / nc_hde_goodput(chooser, class, chooser->best[class]);
    object->sample_credit_ns += SAMPLE_SHARE * expected_ns;
    look = object->sample_credit_ns >= object->sample_ns;
    (void)pthread_mutex_unlock(&link->lock);
    if (look) {
        uint64_t cpu = nc_cpu_ns();

        class = sample(stream->thread, link->options.codecs, content, size,
                       expected_ns < SAMPLE_SHORT_NS ? SAMPLE_SHORT_BYTES : SAMPLE_BYTES);
        cpu = nc_cpu_ns() - cpu;
        (void)pthread_mutex_lock(&link->lock);
        object->classes[object->samples++ % SAMPLE_LEAST_OF] = (uint8_t)class;
        object->sample_credit_ns = 0;
        object->sample_ns = (double)cpu;
        nc_encode_charge(object, NC_AMST_STAGE_SAMPLE, cpu);
        (void)pthread_mutex_unlock(&link->lock);
        budget_take(link->engine, cpu);
    }
    (void)pthread_mutex_lock(&link->lock);
    if (affordable) {
        chooser->allowed = ladder;
        rung = nc_hde_decide(chooser, class, size, &why);
    } else {
        object->coded.budget_chunks++;
        why = NC_HDE_WHY_CPU;
    }
    /* What is tried for once is not a change. */
    if (!affordable || rung == chooser->best[class]) {
        if (object->rung != rung &&
            object->coded.chunks[0] + object->coded.chunks[1] + object->coded.chunks[2] > 0)
            note_change(object, chooser, class, object->rung, rung, (int)why, now_ns);
        else if (object->coded.change_count == 0)
            note_change(object, chooser, class, rung, rung, NC_HDE_WHY_START, now_ns);
        object->rung = rung;
    }
    (void)pthread_mutex_unlock(&link->lock);
    *ret_class = class;
    return rung;
}

static void learn(struct nc_stream *stream, struct nc_amst_object *object, int content_class,
                  int rung, size_t size, size_t coded, uint64_t took_ns)
{
    struct nc_hde_chooser *chooser = &stream->link->chooser;
    struct nc_hde_known *known;
    double ratio = (double)size / (double)coded;

    (void)pthread_mutex_lock(&stream->link->lock);
    known = &chooser->known[content_class][rung];
    if (known->count > 0 && (ratio < 0.7 * known->ratio || ratio > 1.5 * known->ratio))
        object->sample_credit_ns = object->sample_ns; /* not what was expected: look again */
    if (known->count > 0 && (double)took_ns > INTERRUPTED * known->encode_ns * (double)size)
        took_ns = (uint64_t)(INTERRUPTED * known->encode_ns * (double)size);
    nc_hde_learn(chooser, content_class, rung, size, coded, (double)took_ns);
    (void)pthread_mutex_unlock(&stream->link->lock);
}

/* Puts what `coded` has (else the content) through a codec, where that makes it smaller. */
static void take_codec(struct nc_stream *stream, struct nc_amst_object *object,
                       const uint8_t *content, size_t size, struct nc_coded *coded)
{
    struct nc_thread *thread = stream->thread;
    size_t head = coded->flags != 0 ? NC_FRAME_DELTA_BYTES : 0;
    const uint8_t *input = coded->data != NULL ? coded->data + head : content;
    size_t input_size = coded->data != NULL ? coded->size - head : size;
    bool adaptive = object->coding.policy == NC_AMST_CODING_ADAPTIVE;
    uint64_t began = nc_now_ns();
    int class = 0;
    int rung = NC_HDE_RAW;
    int id = object->coding.codec;
    int level = object->coding.level;
    uint8_t *area;
    uint64_t cpu;
    size_t out = 0;

    if (input_size < CODEC_LEAST)
        return;
    if (adaptive) {
        rung = choose(stream, object, input, input_size, began, &class);
        id = nc_hde_codec(rung);
        level = nc_hde_level(rung);
    }
    if (id == NC_CODEC_RAW || (stream->link->options.codecs & 1u << id) == 0)
        return;
    area = nc_thread_work(thread, NC_WORK_CODED);
    if (area == NULL || nc_thread_codec(thread) == NULL)
        return;
    began = nc_now_ns();
    cpu = nc_cpu_ns();
    if (nc_codec_encode(thread->codec, id, level, input, input_size, area + head,
                        CODEC_WORTH(input_size), &out, NULL) != NC_ERR_OK)
        out = 0;
    cpu = nc_cpu_ns() - cpu;
    if (adaptive)
        learn(stream, object, class, rung, input_size, out > 0 ? out : input_size,
              nc_now_ns() - began);
    budget_take(stream->link->engine, cpu);
    (void)pthread_mutex_lock(&stream->link->lock);
    nc_encode_charge(object, NC_AMST_STAGE_ENCODE, cpu);
    (void)pthread_mutex_unlock(&stream->link->lock);
    if (out == 0)
        return;
    if (head > 0)
        memcpy(area, coded->data, head);
    coded->data = area;
    coded->size = head + out;
    coded->codec = (uint8_t)id;
}

void nc_encode(struct nc_stream *stream, struct nc_flight *flight, const uint8_t *content,
               size_t size, struct nc_coded *ret_coded)
{
    struct nc_amst_link *link = stream->link;
    struct nc_amst_object *object = flight->object;
    uint64_t cpu = nc_cpu_ns();
    uint64_t zero_ns;
    uint64_t delta_ns = 0;
    bool delta;

    *ret_coded = (struct nc_coded){.zero = nc_is_zero(content, size)};
    zero_ns = nc_cpu_ns() - cpu;
    (void)pthread_mutex_lock(&link->lock);
    nc_encode_charge(object, NC_AMST_STAGE_ZERO, zero_ns);
    delta = object->base_id != 0 && (link->options.codecs & NC_AMST_DELTA) != 0 &&
            !nc_bit(object->whole, flight->first);
    (void)pthread_mutex_unlock(&link->lock);
    if (ret_coded->zero)
        return;
    if (delta) {
        cpu = nc_cpu_ns();
        take_delta(stream->thread, object, flight->offset, content, size, ret_coded);
        delta_ns = nc_cpu_ns() - cpu;
        budget_take(link->engine, delta_ns);
    }
    take_codec(stream, object, content, size, ret_coded);
    (void)pthread_mutex_lock(&link->lock);
    nc_encode_charge(object, NC_AMST_STAGE_DELTA, delta_ns);
    object->coded.chunks[ret_coded->codec]++;
    object->coded.bytes[ret_coded->codec] += size;
    object->coded.wire_bytes[ret_coded->codec] += ret_coded->data != NULL ? ret_coded->size : size;
    if (ret_coded->flags != 0) {
        object->coded.delta_chunks++;
        object->coded.delta_bytes += size;
        object->coded.delta_wire_bytes += ret_coded->size;
    }
    (void)pthread_mutex_unlock(&link->lock);
}

/* --- What the chooser is told --- */

/* The fastest that the kernel saw one of the streams deliver: also of one whose queue ran dry,
 * since it measures while there is something on the way. Bytes a nanosecond. */
static double burst_of(const struct nc_amst_link *link)
{
    uint64_t most = 0;

    for (const struct nc_stream *stream = link->streams; stream != NULL;
         stream = stream->next_in_link) {
        struct tcp_info info = {0};
        socklen_t size = sizeof info;

        if (stream->channel == NULL &&
            getsockopt(stream->fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
            info.tcpi_delivery_rate > most)
            most = info.tcpi_delivery_rate;
    }
    /* Faster than what is allowed it will not get. */
    if (link->bucket.rate != 0 && most > link->bucket.rate)
        most = link->bucket.rate;
    if (link->engine->bucket.rate != 0 && most > link->engine->bucket.rate)
        most = link->engine->bucket.rate;
    return (double)most * 1e-9;
}

static void close_window(struct nc_amst_link *link, uint64_t now_ns)
{
    struct nc_link_window *window = &link->window;
    struct nc_amst *engine = link->engine;
    uint64_t held_ns = link->info.starved_ns + link->info.window_ns;
    double ns = (double)(now_ns - window->from_ns);
    struct nc_hde_window seen = {.ns = ns,
                                 .wire = (double)window->wire,
                                 .content = (double)window->content,
                                 .now_ns = now_ns};
    double idle = 0;
    bool serves[16] = {false};

    for (const struct nc_stream *stream = link->streams; stream != NULL;
         stream = stream->next_in_link)
        serves[stream->thread - engine->threads] = true;
    for (uint32_t i = 0; i < engine->thread_count; i++) {
        uint64_t total = atomic_load_explicit(&engine->threads[i].idle_ns, memory_order_relaxed);

        if (serves[i] && window->from_ns != 0) {
            seen.cores++;
            idle += (double)(total - window->idle_ns[i]) / ns;
        }
        window->idle_ns[i] = total;
    }
    if (seen.cores > 0) {
        seen.idle = idle / seen.cores;
        seen.held = (double)(held_ns - window->held_ns) > HELD_SHARE * ns * link->stream_count;
        if (seen.idle < NC_HDE_BUSY_IDLE)
            seen.burst = burst_of(link);
        if (engine->encode_cpu != 0 && seen.cores > engine->encode_cpu / 100.0)
            seen.cores = engine->encode_cpu / 100.0;
        nc_hde_observe(&link->chooser, &seen);
    }
    window->held_ns = held_ns;
    window->from_ns = now_ns;
    window->wire = window->content = 0;
    window->chunks = 0;
}

void nc_encode_acknowledged(struct nc_amst_link *link, const struct nc_flight *flight,
                            uint64_t now_ns)
{
    struct nc_link_window *window = &link->window;

    window->wire += flight->wire;
    window->content += flight->bytes;
    window->chunks++;
    if (now_ns - window->from_ns >= WINDOW_LONG_NS ||
        (now_ns - window->from_ns >= nc_hde_window_ns(&link->chooser) &&
         window->chunks >= WINDOW_CHUNKS))
        close_window(link, now_ns);
}
