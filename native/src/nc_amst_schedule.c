/* Which piece a stream sends next.
 *
 * Streams pull: a stream that has room asks, and gets the most urgent piece there is, so that a
 * slow stream takes less by itself. When nothing is left to send, a stream may repeat what another
 * one has had for too long; where a piece belongs is written on it, so that a second copy does no
 * harm. */
#include <stdlib.h>

#include "nc_amst_internal.h"

/* A piece that takes this many times the usual is worth a second copy elsewhere; below the floor a
 * copy costs more than it can win. */
#define HEDGE_TIMES 2.0
#define HEDGE_FLOOR_NS UINT64_C(20000000)
/* What control may send while a rate holds the rest, until it no longer does: bulk pays for it, and
 * control that is bulky itself keeps to the rate. */
#define CONTROL_BORROWS (64u * 1024)
/* What a frame without content takes of the window. */
#define SMALL_CREDIT 64
/* How quickly it is learnt what encoding saves of an object. */
#define SAVED_LEARN 0.25

static struct nc_flight *launch(struct nc_stream *stream, struct nc_amst_object *object,
                                uint8_t frame, uint64_t now_ns)
{
    struct nc_flight *flight = calloc(1, sizeof *flight);

    if (flight == NULL)
        return NULL; /* the piece stays where it was; another turn may have memory */
    flight->object = object;
    flight->frame = frame;
    flight->credit = SMALL_CREDIT;
    flight->sent_ns = now_ns;
    flight->building = true;
    flight->previous = stream->last_flight;
    if (stream->last_flight != NULL)
        stream->last_flight->next = flight;
    else
        stream->first_flight = flight;
    stream->last_flight = flight;
    return flight;
}

static void settle(struct nc_stream *stream, struct nc_amst_object *object, int64_t bytes)
{
    struct nc_amst *engine = stream->link->engine;

    nc_bucket_take(&object->bucket, bytes);
    nc_bucket_take(&stream->link->bucket, bytes);
    stream->link->served[object->class] +=
        (double)bytes / (double)stream->link->weights[object->class];
    (void)pthread_mutex_lock(&engine->lock);
    nc_bucket_take(&engine->bucket, bytes);
    (void)pthread_mutex_unlock(&engine->lock);
}

void nc_flight_charge(struct nc_stream *stream, struct nc_flight *flight)
{
    stream->link->in_flight += flight->credit;
    stream->in_flight_bytes += flight->credit;
    flight->charged = (uint64_t)((double)flight->bytes * (1 - flight->object->saved_share));
    settle(stream, flight->object, (int64_t)flight->charged);
}

void nc_flight_shrink(struct nc_stream *stream, struct nc_flight *flight, uint64_t wire)
{
    uint64_t credit = wire > SMALL_CREDIT ? wire : SMALL_CREDIT;

    if (credit < flight->credit) {
        stream->link->in_flight -= flight->credit - credit;
        stream->in_flight_bytes -= flight->credit - credit;
        flight->credit = credit;
    }
    settle(stream, flight->object, (int64_t)wire - (int64_t)flight->charged);
    flight->charged = wire;
}

void nc_flight_built_as(struct nc_stream *stream, struct nc_flight *flight, uint64_t wire)
{
    struct nc_amst_object *object = flight->object;
    double saved = wire < flight->bytes ? 1 - (double)wire / (double)flight->bytes : 0;

    flight->wire = wire;
    object->saved_share += (saved - object->saved_share) * SAVED_LEARN;
    nc_flight_shrink(stream, flight, wire);
}

static bool next_todo(struct nc_amst_object *object, uint64_t *ret_index)
{
    uint64_t words = (object->chunks + 63) / 64;

    for (; object->cursor < words; object->cursor++) {
        uint64_t word = object->todo[object->cursor];

        if (word != 0) {
            *ret_index = object->cursor * 64 + (uint64_t)__builtin_ctzll(word);
            return true;
        }
    }
    return false;
}

static bool pick_chunk(struct nc_stream *stream, struct nc_amst_object *object, uint64_t now_ns,
                       struct nc_work *ret_work)
{
    struct nc_flight *flight;
    uint64_t index;

    if (!next_todo(object, &index))
        return false;
    flight = launch(stream, object, NC_FRAME_DATA, now_ns);
    if (flight == NULL)
        return false;
    nc_bit_clear(object->todo, index);
    flight->first = index;
    flight->count = 1;
    flight->offset = index * object->chunk;
    flight->bytes = nc_object_chunk_size(object, index);
    flight->credit = flight->bytes;
    object->users++;
    nc_flight_charge(stream, flight);
    *ret_work = (struct nc_work){NC_WORK_CHUNK, object, flight};
    return true;
}

static bool pick_pipe(struct nc_stream *stream, struct nc_amst_object *object, uint64_t now_ns,
                      struct nc_work *ret_work)
{
    struct nc_pipe *pipe = object->pipe;
    struct nc_segment *again = pipe->segments;
    struct nc_flight *flight;

    if (again == NULL && pipe->end_known) {
        if (pipe->end_sent)
            return false;
        flight = launch(stream, object, NC_FRAME_END, now_ns);
        if (flight == NULL)
            return false;
        pipe->end_sent = true;
        flight->offset = pipe->end;
        nc_flight_charge(stream, flight);
        *ret_work = (struct nc_work){NC_WORK_END, object, flight};
        return true;
    }
    if (again == NULL && (pipe->busy || pipe->waiting || pipe->next - pipe->read >= pipe->window))
        return false;
    flight = launch(stream, object, NC_FRAME_SEGMENT, now_ns);
    if (flight == NULL)
        return false;
    if (again != NULL) {
        pipe->segments = again->next;
        again->next = NULL;
        flight->segment = again;
        flight->offset = again->offset;
        flight->bytes = flight->credit = again->size;
        nc_flight_charge(stream, flight);
    } else {
        flight->credit = 0;
        pipe->busy = true; /* and the flight is charged when it is known how much there was */
    }
    object->users++;
    *ret_work = (struct nc_work){NC_WORK_SEGMENT, object, flight};
    return true;
}

/* Behind all others of its class, so that they take turns. */
static void rotate(struct nc_amst_link *link, struct nc_amst_object *object)
{
    struct nc_amst_object **at = &link->outgoing;

    if (object->next == NULL || object->next->class != object->class)
        return;
    while (*at != object)
        at = &(*at)->next;
    *at = object->next;
    while (*at != NULL && (*at)->class == object->class)
        at = &(*at)->next;
    object->next = *at;
    *at = object;
}

static bool pick_hedge(struct nc_stream *stream, uint64_t now_ns, struct nc_work *ret_work,
                       uint64_t *ret_wake_ns)
{
    struct nc_amst_link *link = stream->link;
    struct nc_flight *oldest = NULL;
    struct nc_stream *holder = NULL;
    struct nc_flight *copy;
    uint64_t patience = (uint64_t)(link->ack_ns * HEDGE_TIMES);

    if (link->ack_ns == 0)
        return false;
    if (patience < HEDGE_FLOOR_NS)
        patience = HEDGE_FLOOR_NS;
    for (struct nc_stream *other = link->streams; other != NULL; other = other->next_in_link) {
        struct nc_flight *flight = other->first_flight;

        if (other == stream)
            continue;
        while (flight != NULL &&
               (flight->hedged || flight->frame != NC_FRAME_DATA || flight->object->finished ||
                flight->object->paused || nc_bit(flight->object->done, flight->first)))
            flight = flight->next;
        if (flight != NULL && (oldest == NULL || flight->sent_ns < oldest->sent_ns)) {
            oldest = flight;
            holder = other;
        }
    }
    if (oldest == NULL || holder == NULL)
        return false;
    if (now_ns < oldest->sent_ns + patience) {
        *ret_wake_ns = oldest->sent_ns + patience;
        return false;
    }
    copy = launch(stream, oldest->object, NC_FRAME_DATA, now_ns);
    if (copy == NULL)
        return false;
    oldest->hedged = copy->hedged = true;
    copy->first = oldest->first;
    copy->count = 1;
    copy->offset = oldest->offset;
    copy->bytes = copy->credit = oldest->bytes;
    copy->object->users++;
    copy->object->info.resent_bytes += copy->bytes;
    link->info.resent_bytes += copy->bytes;
    link->info.hedged_chunks++;
    nc_flight_charge(stream, copy);
    *ret_work = (struct nc_work){NC_WORK_CHUNK, copy->object, copy};
    return true;
}

static uint64_t rate_wait(struct nc_amst_link *link, uint64_t now_ns)
{
    struct nc_amst *engine = link->engine;
    uint64_t wait = nc_bucket_wait(&link->bucket, now_ns);
    uint64_t pace_wait = nc_bucket_wait(&link->pace, now_ns);
    uint64_t engine_wait;

    (void)pthread_mutex_lock(&engine->lock);
    engine_wait = nc_bucket_wait(&engine->bucket, now_ns);
    (void)pthread_mutex_unlock(&engine->lock);
    wait = wait > pace_wait ? wait : pace_wait;
    return wait > engine_wait ? wait : engine_wait;
}

/* What a stream learns while it looks for work. */
struct search {
    struct nc_stream *stream;
    uint64_t now_ns;
    struct nc_work *work;
    uint64_t wake_ns; /* 0: when woken */
    enum nc_idle why;
};

static void wait_until(struct search *search, uint64_t at_ns)
{
    if (search->wake_ns == 0 || at_ns < search->wake_ns)
        search->wake_ns = at_ns;
    search->why = NC_IDLE_LIMITED;
}

static bool pick_from(struct search *search, uint32_t class)
{
    struct nc_amst_link *link = search->stream->link;
    struct nc_amst_object *object = link->outgoing;

    while (object != NULL && object->class < class)
        object = object->next;
    for (; object != NULL && object->class == class; object = object->next) {
        uint64_t wait;

        if (object->paused || object->finished || object->aborted)
            continue;
        wait = nc_bucket_wait(&object->bucket, search->now_ns);
        if (wait != 0) {
            wait_until(search, search->now_ns + wait);
            continue;
        }
        if (object->pipe != NULL
                ? pick_pipe(search->stream, object, search->now_ns, search->work)
                : pick_chunk(search->stream, object, search->now_ns, search->work)) {
            rotate(link, object);
            return true;
        }
    }
    return false;
}

/* Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): the class that was served least,
 * measured by its weight, comes first, and one that had nothing for a while does not catch up on
 * it. Deficits by rounds would share the same, but in bursts as long as a round of the heaviest. */
static bool pick_by_weight(struct search *search)
{
    struct nc_amst_link *link = search->stream->link;
    uint32_t left = 0;

    for (uint32_t class = NC_AMST_CLASS_CONTROL + 1; class < NC_AMST_CLASSES; class++) {
        left |= 1u << class;
        if ((link->backlogged >> class & 1) == 0 && link->served[class] < link->virtual_now)
            link->served[class] = link->virtual_now;
    }
    while (left != 0) {
        uint32_t first = NC_AMST_CLASSES;
        double start;

        for (uint32_t class = 0; class < NC_AMST_CLASSES; class++) {
            if ((left >> class & 1) != 0 &&
                (first == NC_AMST_CLASSES || link->served[class] < link->served[first]))
                first = class;
        }
        start = link->served[first];
        if (pick_from(search, first)) {
            link->backlogged |= 1u << first;
            link->virtual_now = start;
            return true;
        }
        link->backlogged &= ~(1u << first);
        left &= ~(1u << first);
    }
    return false;
}

/* Control waits for no debt that another class made. */
static bool pick_control(struct search *search, bool held)
{
    struct nc_amst_link *link = search->stream->link;

    if (!held)
        link->borrowed = 0;
    else if (link->borrowed >= CONTROL_BORROWS)
        return false;
    if (!pick_from(search, NC_AMST_CLASS_CONTROL))
        return false;
    if (held) /* of a pipe it is known later how much it was: what it may be at most */
        link->borrowed += search->work->flight->bytes != 0 ? search->work->flight->bytes
                                                           : search->work->object->chunk;
    return true;
}

static enum nc_idle find_work(struct search *search)
{
    uint64_t held = rate_wait(search->stream->link, search->now_ns);

    if (pick_control(search, held != 0))
        return NC_IDLE_EMPTY;
    if (held != 0) {
        wait_until(search, search->now_ns + held);
        return NC_IDLE_LIMITED;
    }
    if (!nc_pace_sends(search->stream))
        return search->why;
    if (pick_by_weight(search))
        return NC_IDLE_EMPTY;
    if (search->why == NC_IDLE_EMPTY)
        (void)pick_hedge(search->stream, search->now_ns, search->work, &search->wake_ns);
    return search->why;
}

enum nc_idle nc_schedule(struct nc_stream *stream, uint64_t now_ns, struct nc_work *ret_work,
                         uint64_t *ret_wake_ns)
{
    struct nc_amst_link *link = stream->link;
    struct search search = {
        .stream = stream, .now_ns = now_ns, .work = ret_work, .why = NC_IDLE_EMPTY};
    enum nc_idle why;

    *ret_work = (struct nc_work){NC_WORK_NONE, NULL, NULL};
    *ret_wake_ns = 0;
    nc_pace_charge(stream);
    if (atomic_load(&stream->retiring)) {
        if (stream->first_flight == NULL && !stream->said_bye)
            ret_work->kind = NC_WORK_BYE;
        return NC_IDLE_EMPTY;
    }
    if (link->in_flight > 0 &&
        link->in_flight + link->options.max_chunk > link->options.send_window)
        return NC_IDLE_WINDOW;
    why = find_work(&search);
    *ret_wake_ns = search.wake_ns;
    return why;
}
