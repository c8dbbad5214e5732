/* Objects: their bitmaps, their ends, and how their bytes are read and written. */
#define _GNU_SOURCE

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nc_amst_internal.h"
#include "nc_codec.h"
#include "nc_crc.h"

/* Holes are kept in units of a page: file systems know no smaller ones that matter. */
#define BLOCK_BYTES 4096

uint32_t nc_object_chunk_size(const struct nc_amst_object *object, uint64_t index)
{
    uint64_t left = object->size - index * object->chunk;

    return left < object->chunk ? (uint32_t)left : object->chunk;
}

struct nc_amst_object *nc_object_find(struct nc_amst_object *list, uint32_t number,
                                      uint32_t generation)
{
    while (list != NULL && (list->number != number || list->generation != generation))
        list = list->next;
    return list;
}

/* --- States --- */

void nc_object_finish(struct nc_amst_object *object, int code, int os_errno)
{
    if (object->finished)
        return;
    object->finished = true;
    object->info.finished = 1;
    object->info.code = code;
    object->info.os_errno = os_errno;
    nc_notice_post(object->link->engine, &object->notice,
                   code == NC_ERR_OK ? NC_AMST_OBJECT_DONE : NC_AMST_OBJECT_FAILED, code, os_errno);
}

void nc_object_chunks_done(struct nc_amst_object *object, uint64_t first, uint64_t count,
                           uint64_t bytes)
{
    for (uint64_t i = first; i < first + count; i++) {
        if (nc_bit(object->done, i))
            continue;
        nc_bit_set(object->done, i);
        if (object->role == NC_OBJECT_SEND)
            nc_bit_clear(object->todo, i);
        object->info.done_chunks++;
        object->info.done_bytes += nc_object_chunk_size(object, i);
        object->info.moved_bytes += bytes;
    }
    if (object->info.done_chunks == object->chunks)
        nc_object_finish(object, NC_ERR_OK, 0);
}

static void end(struct nc_amst_object *object)
{
    if (object->ended || !object->aborted || object->users != 0)
        return;
    object->ended = true;
    nc_notice_post(object->link->engine, &object->notice, NC_AMST_OBJECT_ENDED, NC_ERR_OK, 0);
}

void nc_object_release(struct nc_amst_object *object)
{
    object->users--;
    end(object);
}

static void forget_flights(struct nc_amst_object *object)
{
    for (struct nc_stream *stream = object->link->streams; stream != NULL;
         stream = stream->next_in_link) {
        struct nc_flight *flight = stream->first_flight;

        while (flight != NULL) {
            struct nc_flight *next = flight->next;

            /* A thread that builds a frame from it right now puts it away itself. */
            if (flight->object == object && !flight->building) {
                nc_flight_remove(stream, flight);
                free(flight->segment);
                free(flight);
            }
            flight = next;
        }
    }
}

void nc_amst_object_abort(struct nc_amst_object *object)
{
    struct nc_amst_link *link = object->link;
    struct nc_amst_object **at = object->role == NC_OBJECT_SEND ? &link->outgoing : &link->incoming;

    (void)pthread_mutex_lock(&link->lock);
    if (!object->aborted) {
        object->aborted = true;
        object->finished = true;
        object->info.finished = 1;
        while (*at != NULL && *at != object)
            at = &(*at)->next;
        if (*at == object)
            *at = object->next;
        forget_flights(object);
        /* Streams that send from its memory take the rest into their own. */
        for (struct nc_stream *stream = link->streams; stream != NULL;
             stream = stream->next_in_link)
            nc_link_kick(stream);
        if (object->pipe != NULL) {
            struct nc_thread *home = object->pipe->home;

            (void)pthread_mutex_lock(&home->lock);
            object->pipe->next_closing = home->closing;
            home->closing = object;
            (void)pthread_mutex_unlock(&home->lock);
            nc_thread_wake(home);
        }
        end(object);
    }
    (void)pthread_mutex_unlock(&link->lock);
}

void nc_amst_object_free(struct nc_amst_object *object)
{
    if (object == NULL)
        return;
    if (object->pipe != NULL) {
        while (object->pipe->segments != NULL) {
            struct nc_segment *segment = object->pipe->segments;

            object->pipe->segments = segment->next;
            free(segment);
        }
        if (object->pipe->fd >= 0)
            (void)close(object->pipe->fd);
        free(object->pipe);
    }
    free(object->todo);
    free(object->done);
    free(object->leaves);
    free(object->held);
    free(object->whole);
    free(object);
}

void nc_link_drop_objects(struct nc_amst_link *link)
{
    struct nc_amst_object **lists[] = {&link->outgoing, &link->incoming};

    for (size_t i = 0; i < 2; i++) {
        while (*lists[i] != NULL) {
            struct nc_amst_object *object = *lists[i];

            *lists[i] = object->next;
            nc_amst_object_free(object);
        }
    }
}

/* --- Making --- */

/* An object, or NULL with *err set. `have` and `leaves` are of what is done already. */
static struct nc_amst_object *make(struct nc_amst_link *link, enum nc_object_role role,
                                   uint64_t size, uint32_t chunk, const uint8_t *have,
                                   const uint32_t *leaves, struct nc_err *err)
{
    struct nc_amst_object *object;
    uint64_t words;

    if (chunk < BLOCK_BYTES || chunk % BLOCK_BYTES != 0 || chunk > link->options.max_chunk ||
        size > INT64_MAX) {
        (void)nc_err_set(err, NC_ERR_INVALID, 0, "%llu bytes in chunks of %u",
                         (unsigned long long)size, chunk);
        return NULL;
    }
    object = calloc(1, sizeof *object);
    if (object == NULL)
        goto no_memory;
    object->notice.subject = NC_SUBJECT_OBJECT;
    object->link = link;
    object->role = role;
    object->fd = object->base_fd = -1;
    object->size = size;
    object->chunk = chunk;
    object->chunks = size / chunk + (size % chunk != 0);
    object->info.chunks = object->chunks;
    object->zero_leaf = nc_crc32_zeros(0, chunk);
    words = (object->chunks + 63) / 64 + 1; /* one more, so that none is not a special case */
    object->todo = calloc(words, sizeof *object->todo);
    object->done = calloc(words, sizeof *object->done);
    object->leaves = calloc(object->chunks + 1, sizeof *object->leaves);
    if (object->todo == NULL || object->done == NULL || object->leaves == NULL)
        goto no_memory;
    for (uint64_t i = 0; i < object->chunks; i++) {
        if (have != NULL && (have[i / 8] >> (i % 8) & 1) != 0) {
            nc_bit_set(object->done, i);
            object->leaves[i] = leaves != NULL ? leaves[i] : 0;
            object->info.done_chunks++;
            object->info.done_bytes += nc_object_chunk_size(object, i);
        } else if (role == NC_OBJECT_SEND) {
            nc_bit_set(object->todo, i);
        }
    }
    return object;

no_memory:
    nc_amst_object_free(object);
    (void)nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for an object of %llu bytes",
                     (unsigned long long)size);
    return NULL;
}

void nc_object_sort(struct nc_amst_link *link, struct nc_amst_object *object)
{
    struct nc_amst_object **at = &link->outgoing;

    while (*at != NULL && (*at)->class <= object->class)
        at = &(*at)->next;
    object->next = *at;
    *at = object;
}

int nc_object_enlist(struct nc_amst_object *object, struct nc_err *err)
{
    struct nc_amst_link *link = object->link;
    struct nc_amst_object *list;

    (void)pthread_mutex_lock(&link->lock);
    list = object->role == NC_OBJECT_SEND ? link->outgoing : link->incoming;
    if (link->aborted || object->number == 0 ||
        nc_object_find(list, object->number, object->generation) != NULL) {
        int code = link->aborted ? nc_err_set(err, NC_ERR_CLOSED, 0, "the link was ended")
                                 : nc_err_set(err, NC_ERR_INVALID, 0, "object number %u is taken",
                                              object->number);

        (void)pthread_mutex_unlock(&link->lock);
        return code;
    }
    if (object->role == NC_OBJECT_SEND) {
        nc_object_sort(link, object);
    } else {
        object->next = link->incoming;
        link->incoming = object;
    }
    if (object->pipe == NULL && object->info.done_chunks == object->chunks)
        nc_object_finish(object, NC_ERR_OK, 0);
    nc_link_wake(link, link->stream_count);
    (void)pthread_mutex_unlock(&link->lock);
    return NC_ERR_OK;
}

/* The sender's side of it. */
static int give_base(struct nc_amst_object *object, const struct nc_amst_source *source,
                     struct nc_err *err)
{
    uint64_t end = 0;

    if (object->coding.policy < NC_AMST_CODING_OFF ||
        object->coding.policy > NC_AMST_CODING_FIXED ||
        (object->coding.policy == NC_AMST_CODING_FIXED &&
         (object->coding.codec < 0 || object->coding.codec >= NC_CODEC_COUNT)))
        return nc_err_set(err, NC_ERR_INVALID, 0, "policy %d, codec %d", object->coding.policy,
                          object->coding.codec);
    if (source->base_id == 0)
        return NC_ERR_OK;
    object->base_id = source->base_id;
    object->base_fd = source->base_fd;
    object->base = source->base_memory;
    object->whole = calloc((object->chunks + 63) / 64 + 1, sizeof *object->whole);
    object->held = calloc(source->held_count + 1, sizeof *object->held);
    if (object->whole == NULL || object->held == NULL)
        return nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for what the receiver holds");
    for (size_t i = 0; i < source->held_count; i++) {
        const struct nc_amst_range *range = &source->held[i];

        if (range->size == 0 || range->offset < end || range->offset > object->size ||
            range->size > object->size - range->offset)
            return nc_err_set(err, NC_ERR_INVALID, 0, "range %zu of what the receiver holds", i);
        end = range->offset + range->size;
        object->held[i] = *range;
    }
    object->held_count = source->held_count;
    return NC_ERR_OK;
}

int nc_amst_send(struct nc_amst_link *link, const struct nc_amst_source *source,
                 struct nc_amst_object **ret_object, struct nc_err *err)
{
    struct nc_amst_object *object;
    int code;

    *ret_object = NULL;
    object =
        make(link, NC_OBJECT_SEND, source->size, source->chunk, source->have, source->leaves, err);
    if (object == NULL)
        return err->code;
    object->tag = source->tag;
    object->number = source->number;
    object->generation = source->generation;
    object->fd = source->fd;
    object->source = source->memory;
    object->class = nc_class_of(source->priority);
    object->sparse = source->sparse != 0 && source->fd >= 0;
    object->stable = source->stable != 0;
    object->coding = source->coding;
    nc_bucket_set(&object->bucket, source->limit_bps, nc_now_ns());
    code = give_base(object, source, err);
    if (code == NC_ERR_OK)
        code = nc_object_enlist(object, err);
    if (code != NC_ERR_OK) {
        nc_amst_object_free(object);
        return code;
    }
    *ret_object = object;
    return NC_ERR_OK;
}

int nc_amst_receive(struct nc_amst_link *link, const struct nc_amst_target *target,
                    struct nc_amst_object **ret_object, struct nc_err *err)
{
    struct nc_amst_object *object;
    int code;

    *ret_object = NULL;
    object = make(link, NC_OBJECT_RECEIVE, target->size, target->chunk, target->have,
                  target->leaves, err);
    if (object == NULL)
        return err->code;
    object->tag = target->tag;
    object->number = target->number;
    object->generation = target->generation;
    object->fd = target->fd;
    object->target = target->memory;
    object->sparse = target->sparse != 0;
    object->used = target->base_id != 0;
    object->base_id = target->base_id;
    object->base_fd = target->base_fd;
    object->base = target->base_memory;
    code = nc_object_enlist(object, err);
    if (code != NC_ERR_OK) {
        nc_amst_object_free(object);
        return code;
    }
    *ret_object = object;
    return NC_ERR_OK;
}

/* --- Changing and asking --- */

void nc_amst_object_pause(struct nc_amst_object *object, int paused)
{
    (void)pthread_mutex_lock(&object->link->lock);
    object->paused = paused != 0;
    nc_link_wake(object->link, object->link->stream_count);
    (void)pthread_mutex_unlock(&object->link->lock);
}

void nc_amst_object_limit(struct nc_amst_object *object, uint64_t limit_bps)
{
    (void)pthread_mutex_lock(&object->link->lock);
    nc_bucket_set(&object->bucket, limit_bps, nc_now_ns());
    nc_link_wake(object->link, object->link->stream_count);
    (void)pthread_mutex_unlock(&object->link->lock);
}

void nc_amst_object_priority(struct nc_amst_object *object, uint32_t priority)
{
    struct nc_amst_object **at = &object->link->outgoing;

    (void)pthread_mutex_lock(&object->link->lock);
    if (object->role == NC_OBJECT_SEND && !object->aborted) {
        while (*at != NULL && *at != object)
            at = &(*at)->next;
        if (*at == object) {
            *at = object->next;
            object->class = nc_class_of(priority);
            nc_object_sort(object->link, object);
        }
    }
    (void)pthread_mutex_unlock(&object->link->lock);
}

void nc_amst_object_info(struct nc_amst_object *object, struct nc_amst_object_info *ret_info)
{
    (void)pthread_mutex_lock(&object->link->lock);
    *ret_info = object->info;
    (void)pthread_mutex_unlock(&object->link->lock);
}

void nc_amst_object_coding(struct nc_amst_object *object, struct nc_amst_coding_info *ret_info)
{
    (void)pthread_mutex_lock(&object->link->lock);
    *ret_info = object->coded;
    (void)pthread_mutex_unlock(&object->link->lock);
}

int nc_amst_object_bitmap(struct nc_amst_object *object, uint8_t *ret_bits, size_t size,
                          struct nc_err *err)
{
    if (size < object->chunks / 8 + (object->chunks % 8 != 0))
        return nc_err_set(err, NC_ERR_LIMIT, 0, "%zu bytes for %llu chunks", size,
                          (unsigned long long)object->chunks);
    memset(ret_bits, 0, size);
    (void)pthread_mutex_lock(&object->link->lock);
    for (uint64_t i = 0; i < object->chunks; i++) {
        if (nc_bit(object->done, i))
            ret_bits[i / 8] = (uint8_t)(ret_bits[i / 8] | 1u << (i % 8));
    }
    (void)pthread_mutex_unlock(&object->link->lock);
    return NC_ERR_OK;
}

int nc_amst_object_leaves(struct nc_amst_object *object, uint64_t first, size_t count,
                          uint32_t *ret_leaves, struct nc_err *err)
{
    if (first > object->chunks || count > object->chunks - first)
        return nc_err_set(err, NC_ERR_LIMIT, 0, "chunks %llu to %llu of %llu",
                          (unsigned long long)first, (unsigned long long)(first + count),
                          (unsigned long long)object->chunks);
    (void)pthread_mutex_lock(&object->link->lock);
    memcpy(ret_leaves, object->leaves + first, count * sizeof *ret_leaves);
    (void)pthread_mutex_unlock(&object->link->lock);
    return NC_ERR_OK;
}
