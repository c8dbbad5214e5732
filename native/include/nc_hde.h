/* HDE, hybrid data encoding: which codec a chunk gets. Pure: no clock, no allocation, no codec is
 * called here; who uses it says what things took, and is told what to do next.
 *
 * The rate at which content gets over is bounded twice: by the threads that encode, and by the
 * link, which takes fewer bytes the better they are encoded. For each rung c of a ladder of codecs
 *
 *     goodput(c) = min(cores / (encode_ns(c) + content_ns + wire_ns / ratio(c)), link * ratio(c))
 *
 * is predicted from what was measured, and the largest wins. Speed and ratio are kept for each
 * class of content, told apart by how well a small sample of a chunk is compressed: so that a
 * change of content is met with what is known of such content, and not with what was good for the
 * last one. */
#ifndef NC_HDE_H
#define NC_HDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The ladder. The order is that of cost. */
enum nc_hde_rung {
    NC_HDE_RAW,
    NC_HDE_LZ4,
    NC_HDE_ZSTD_FAST, /* level -5 */
    NC_HDE_ZSTD_1,
    NC_HDE_ZSTD_3,
    NC_HDE_ZSTD_6,
    NC_HDE_ZSTD_9,
    NC_HDE_RUNGS
};

/* enum nc_codec_id, and the level it is called with. */
int nc_hde_codec(int rung);
int nc_hde_level(int rung);

#define NC_HDE_CLASSES 8

/* Why the rung of a class is another one than before. */
enum nc_hde_why {
    NC_HDE_WHY_START,   /* nothing is known yet */
    NC_HDE_WHY_LINK,    /* the link is what bounds: fewer bytes are faster */
    NC_HDE_WHY_ENCODER, /* the queue of the link ran dry: less work is faster */
    NC_HDE_WHY_CONTENT, /* other content */
    NC_HDE_WHY_CPU,     /* the CPU that may be used for encoding is used up */
    NC_HDE_WHY_MAX
};

struct nc_hde_known {
    double encode_ns; /* a byte of content */
    double ratio;     /* content for each byte on the wire */
    uint32_t count;   /* chunks it was measured on; 0: a guess */
    uint32_t age;     /* chunks of this class since */
    bool trying;      /* a chunk is encoded with it for the first time */
};

/* What bytes cost, the later ones counting more. */
struct nc_hde_cost {
    double bytes;
    double ns;
};

struct nc_hde_chooser {
    uint32_t allowed; /* bit per rung; RAW always */
    double cores;     /* threads that encode for the link now */
    double link;      /* bytes on the wire a nanosecond; what is believed */
    bool link_known;
    bool encoder_bound; /* in the last window */
    bool raised;        /* the link is believed faster than it was seen to be */
    double raised_to;
    uint64_t hold_ns; /* how long the last belief that was wrong keeps from another one */
    uint64_t hold_until_ns;
    struct nc_hde_cost content; /* of a byte of content: reading, checksum */
    struct nc_hde_cost wire;    /* of a byte on the wire: sealing, sending */
    double machine;             /* what encoding takes here, as a multiple of the guess */
    double truth[NC_HDE_RUNGS]; /* goodput seen, as a share of the goodput predicted */
    double window_bytes[NC_HDE_RUNGS];
    double window_predicted_ns;
    uint32_t windows;
    struct nc_hde_known known[NC_HDE_CLASSES][NC_HDE_RUNGS];
    uint8_t best[NC_HDE_CLASSES];
    uint32_t explored[NC_HDE_CLASSES]; /* chunks since another rung was tried */
};

/* link: bytes a second that the path is expected to take; 0: not known. */
void nc_hde_open(struct nc_hde_chooser *chooser, uint32_t allowed, double link);
/* The rungs of the codecs in `codecs` (bit per nc_codec_id) with zstd levels of those limits. */
uint32_t nc_hde_ladder(unsigned codecs, int level_min, int level_max);
/* The class of content whose sample of `size` bytes was encoded into `coded` (0: not smaller). */
int nc_hde_class(size_t size, size_t coded);
/* The rung for the next chunk of `size` bytes; `ret_why` is told where it is another one than the
 * last chunk of that class had. */
int nc_hde_decide(struct nc_hde_chooser *chooser, int content_class, size_t size,
                  enum nc_hde_why *ret_why);
/* Predicted goodput, in bytes of content a nanosecond. */
double nc_hde_goodput(const struct nc_hde_chooser *chooser, int content_class, int rung);
/* What a chunk turned out to be: `size` bytes became `wire`, in `encode_ns` (0 for RAW). */
void nc_hde_learn(struct nc_hde_chooser *chooser, int content_class, int rung, size_t size,
                  size_t wire, double encode_ns);
/* What everything but the encoding of a chunk took. */
void nc_hde_learn_rest(struct nc_hde_chooser *chooser, size_t size, double content_ns, size_t wire,
                       double wire_ns);

struct nc_hde_window {
    double ns;
    double wire;    /* bytes acknowledged in it, as they were on the wire */
    double content; /* the same, before they were encoded */
    double cores;   /* threads that serve the link */
    double idle;    /* share of their time in which they waited, 0 to 1 */
    double burst;   /* bytes a nanosecond: the fastest that the kernel saw a stream deliver; 0: not
                       asked */
    bool held;      /* something else than link and encoder was in the way: no source, no window */
    uint64_t now_ns;
};
/* How long the next window is to be: short ones at first, so that what begins with a guess does not
 * go on with it for long. */
uint64_t nc_hde_window_ns(const struct nc_hde_chooser *chooser);
void nc_hde_observe(struct nc_hde_chooser *chooser, const struct nc_hde_window *window);

/* Threads that waited less than this share of the time were what bounded. */
#define NC_HDE_BUSY_IDLE 0.15

#endif
