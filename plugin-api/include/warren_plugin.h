/* warren_plugin.h: write a Warren handler in C, C++, or anything that can speak C.
 *
 * A plugin is a shared library that exports warren_plugin_v1() and carries a manifest (WARREN_MANIFEST). The
 * daemon reads the manifest without running anything, then loads the plugin into a process of its own, a plugin
 * host, which runs one task at a time. A crash costs the task that was running one attempt, and nothing else.
 *
 * Rules that hold everywhere:
 *
 * Memory    What is passed in is borrowed: valid until the function returns, not to be freed or changed. What is
 *           passed out goes through functions that copy it before they return. Nothing is freed across the boundary.
 * Text      Is UTF-8 with a length and WITHOUT a terminating NUL. ptr may be NULL when len is 0.
 * Threads   create, handle, quiesce and destroy are called on the host's main thread, one at a time. The functions
 *           in warren_call may be called from any thread until that call returns, log from any thread until destroy
 *           returns.
 * Unwinding No exception and no longjmp may leave a plugin function: catch it, and return WARREN_FAULT.
 * Growth    Structs grow at the end, and struct_size says how much of one there is. A host takes plugins of its own
 *           major version and of a minor version not above its own, so every field in this header is there at run
 *           time. A host reads from a plugin's struct only what lies inside its struct_size. warren_bytes and
 *           warren_field never grow.
 * Integers  Statuses, levels and codes are integers, not enums: one that the other side does not know is no crash.
 *
 * For LP64 little-endian Linux (x86-64, aarch64, riscv64). C99 or C++11. */
#ifndef WARREN_PLUGIN_H
#define WARREN_PLUGIN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WARREN_ABI_MAJOR 1
#define WARREN_ABI_MINOR 0

/* First word of warren_plugin: the bytes "WRRN" in memory. */
#define WARREN_MAGIC UINT32_C(0x4e525257)

/* What create, handle and quiesce return. Any other value is a fault. */
enum {
    WARREN_DONE = 0,      /* finished; acknowledged once the follow-ups are confirmed */
    WARREN_RETRY = 1,     /* again later: what stopped it may pass */
    WARREN_REJECT = 2,    /* never again: a dead letter with the error's code and message */
    WARREN_CANCELLED = 3, /* stopped because cancelled() or the deadline said so; a fault without either */
    WARREN_FAULT = 4      /* the handler itself is broken; tried again like WARREN_RETRY, in a new host */
};

/* Bits of warren_task.flags. Ignore bits that are not here. */
enum {
    WARREN_TASK_REDELIVERED = 1, /* the broker delivered it before: it may have run, wholly or in part */
    WARREN_TASK_ID_GENERATED = 2 /* the producer gave no id; a producer that sends it twice gets two ids */
};

/* Levels of warren_host.log. */
enum {
    WARREN_LOG_ERROR = 1,
    WARREN_LOG_WARN = 2,
    WARREN_LOG_INFO = 3,
    WARREN_LOG_DEBUG = 4,
    WARREN_LOG_TRACE = 5
};

/* What warren_call.publish returns. */
enum {
    WARREN_PUBLISH_OK = 0,
    WARREN_PUBLISH_NOT_ALLOWED = 1, /* not during handle */
    WARREN_PUBLISH_INVALID = 2,     /* text that is not UTF-8, a negative time, a priority over 255; a queue, type or
                                     * header name over WARREN_MAX_WORD_BYTES: not sent */
    WARREN_PUBLISH_TOO_MANY = 3,    /* over WARREN_MAX_FOLLOW_UPS: the task is a fault whatever it returns */
    WARREN_PUBLISH_TOO_LARGE = 4    /* over one of the other bounds: the task is a fault whatever it returns */
};

/* Bounds, in bytes unless said otherwise. What a task says of itself is cut: it does not undo what was done. A follow-up
 * over a bound makes the task a fault whatever it returns. */
enum {
    WARREN_MAX_RESULT_BYTES = 262144,       /* a result's body, a summary: the artefact belongs in a file; a longer
                                             * one is left out, and a line says so */
    WARREN_MAX_WORD_BYTES = 255,            /* a content type: without its parameters; an error code, a log field's
                                             * key: cut */
    WARREN_MAX_ERROR_BYTES = 8192,          /* an error message; cut; the header of a retry or dead letter keeps the
                                             * first 1024 bytes */
    WARREN_MAX_FOLLOW_UPS = 1000,           /* follow-ups of one task: each waits for a confirm; fault */
    WARREN_MAX_FOLLOW_UP_BYTES = 1048576,   /* body of one follow-up; fault */
    WARREN_MAX_FOLLOW_UP_PROPERTIES = 4096, /* all text of one follow-up but its body, one broker frame; fault */
    WARREN_MAX_FOLLOW_UPS_BYTES = 16777216, /* bodies of all follow-ups of one task; fault */
    WARREN_MAX_LOG_BYTES = 8192,            /* a log line, a field's value, a progress note; cut */
    WARREN_MAX_LOG_FIELDS = 32,             /* fields of a log line; the rest is left out */
    WARREN_MAX_LOG_FIELDS_BYTES = 32768     /* all keys and values of a log line together; cut */
};

/* Borrowed bytes. */
typedef struct {
    const uint8_t *ptr;
    size_t len;
} warren_bytes;

/* A key and a value, both text. */
typedef struct {
    warren_bytes key, value;
} warren_field;

/* What the host gives the plugin for life. Yours to read from create on; valid until destroy returns, or,
 * when create fails, until create returns. The struct itself may be kept by pointer. */
struct warren_host {
    uint32_t struct_size;
    uint16_t abi_major, abi_minor; /* the host's */
    void *ctx;                     /* first argument of every function here */

    /* Writes a line to the daemon's log; the handler and the running task are added. Any thread, any time
     * until destroy returns. Copies message and fields. Never fails: too much is cut. */
    void (*log)(void *ctx, int32_t level, warren_bytes message, const warren_field *fields, size_t n);
};

struct warren_message;

/* One call into the plugin. The struct and all its functions are valid until that call returns, and then not
 * even for a thread that the call started: join it first. Every function may be called from any thread. */
struct warren_call {
    uint32_t struct_size;

    /* Becomes readable, and stays so, when the task should stop; -1: never. For poll() beside other
     * descriptors. It is the host's: never read, write or close it. It is close-on-exec. */
    int32_t cancel_fd;
    void *ctx;           /* first argument of every function here */
    int64_t deadline_ns; /* CLOCK_MONOTONIC in nanoseconds, when the task's time is up; 0: none */

    /* Not 0 when the task should stop: the daemon drains, an operator asked, or its time is up. Cheap. Look
     * between steps, clean up, return WARREN_CANCELLED. Without an answer within the grace, the process and
     * its children are killed. */
    int32_t (*cancelled)(void *ctx);

    /* How far the task is, 0 to 1000, with a line for people. Copies note. Cheap: the host lets a few a
     * second pass. */
    void (*progress)(void *ctx, uint32_t permille, warren_bytes note);

    /* Sets what a task that is done has to say: a few KiB for people and the log. content_type is a MIME
     * type. Copies both; the last one wins. What is over WARREN_MAX_RESULT_BYTES is left out, a content type that
     * is no text or over WARREN_MAX_WORD_BYTES loses its parameters; both are a warning in the log. Only in handle:
     * elsewhere it is a fault. */
    void (*set_result)(void *ctx, warren_bytes content_type, warren_bytes body);

    /* Says why a task is not done, or why create failed (the operator is shown it). code is a short word for
     * machines, e.g. "server-busy"; message is a line for people. retry_after_ms > 0 asks for that delay
     * before the next attempt. Copies both; the last one wins. Not looked at when the status is WARREN_DONE. */
    void (*set_error)(void *ctx, warren_bytes code, warren_bytes message, int64_t retry_after_ms);

    /* Adds a follow-up task: sent only if this task is done, and confirmed by the broker before this task is
     * acknowledged. Copies the message and all it points to. Only in handle. Returns WARREN_PUBLISH_OK or why
     * not. */
    int32_t (*publish)(void *ctx, const struct warren_message *message);
};

/* A follow-up task; the plugin's until publish returns. Zero-initialise it, then set struct_size, body,
 * and priority. */
struct warren_message {
    uint32_t struct_size; /* sizeof(struct warren_message) */
    uint32_t n_headers;
    warren_bytes id;           /* empty: "<task id>/<n>", so that a rerun repeats its ids; over 255 bytes: its SHA-256 */
    warren_bytes queue;        /* empty: the task's own */
    warren_bytes type;         /* AMQP type, by which it is routed in place of its text; empty: none */
    warren_bytes content_type; /* empty: none */
    warren_bytes body;
    const warren_field *headers;
    int64_t delay_ms;   /* before it becomes visible; 0: at once */
    int64_t expires_ms; /* until it expires; 0: never */
    int32_t priority;   /* AMQP priority, 0 to 255; -1: none */
    uint32_t reserved;  /* 0 */
};

/* The task to handle; the host's, valid until handle returns. */
struct warren_task {
    uint32_t struct_size;
    uint32_t attempt; /* from 1 */
    uint32_t flags;   /* WARREN_TASK_... */
    uint32_t n_headers;
    warren_bytes id;       /* the same on every attempt and redelivery: effects can be keyed by it */
    warren_bytes queue;    /* the queue it came from */
    warren_bytes prefix;   /* the prefix that matched, or the AMQP type that did */
    warren_bytes argument; /* text after the prefix, trimmed: "#1001" of "Task 1: Process order #1001" */
    warren_bytes content_type; /* empty: none */
    warren_bytes body;         /* all of it, label and prefix included; any bytes */
    const warren_field *headers; /* a value that is not a string is its JSON */
};

/* The plugin's functions; static in the plugin, never changed. All are called on the host's main thread. */
struct warren_plugin {
    uint32_t magic;       /* WARREN_MAGIC */
    uint32_t struct_size; /* sizeof(struct warren_plugin) */
    uint16_t abi_major, abi_minor; /* of the header it was compiled with */
    uint32_t flags;       /* 0 */

    /* Makes a handler: called once, first. settings_json is the operator's table of settings as a JSON object
     * ("{}" if there are none); check it, unknown keys included. On WARREN_DONE, *instance is yours, passed
     * to the other functions as it is, and must not be NULL. On any other status leave *instance alone, say
     * why with call->set_error, and expect no destroy. The call has a deadline. A new configuration is tried
     * while the old one still runs in another process. */
    int32_t (*create)(const struct warren_host *host, warren_bytes settings_json, const struct warren_call *call,
                      void **instance);

    /* Does one task; called any number of times, one at a time, between create and quiesce. May see the same
     * task again (id, attempt, flags): effects should bear that. */
    int32_t (*handle)(void *instance, const struct warren_task *task, const struct warren_call *call);

    /* Optional, may be NULL: called at most once, after the last task and before destroy. Ends threads,
     * flushes. The call has a deadline. The status is logged, no more. */
    int32_t (*quiesce)(void *instance, const struct warren_call *call);

    /* Frees the handler: called at most once, last; the process ends right after, without running exit
     * handlers and without unloading the plugin. Not called when the host is killed: keep nothing that only
     * destroy would save. */
    void (*destroy)(void *instance);
};

#if defined(__GNUC__)
#define WARREN_EXPORT __attribute__((visibility("default"), used))
#else
#define WARREN_EXPORT
#endif

/* The one symbol a plugin exports. Returns the same pointer to a static struct each time; runs nothing
 * else. */
WARREN_EXPORT const struct warren_plugin *warren_plugin_v1(void);

/* The first five fields of a warren_plugin. */
#define WARREN_PLUGIN_HEAD WARREN_MAGIC, (uint32_t)sizeof(struct warren_plugin), WARREN_ABI_MAJOR, WARREN_ABI_MINOR, 0

/* The text of a NUL-terminated string; borrowed from it. */
static inline warren_bytes warren_text(const char *text) {
    warren_bytes bytes;
    bytes.ptr = (const uint8_t *)text;
    bytes.len = strlen(text);
    return bytes;
}

/* Whether a text is the same as a NUL-terminated string. */
static inline int warren_is(warren_bytes bytes, const char *text) {
    return bytes.len == strlen(text) && (bytes.len == 0 || memcmp(bytes.ptr, text, bytes.len) == 0);
}

/* The manifest: once per plugin, at file scope, in one string literal (or several side by side).
 *
 *   WARREN_MANIFEST("{\"name\":\"hello\",\"version\":\"1.0\",\"abi\":{\"major\":1,\"minor\":0},"
 *                   "\"prefixes\":[\"Say hello\"],\"timeout\":\"30s\",\"settings\":[\"greeting\"]}");
 *
 * name: lower-case letters, digits and -. prefixes: which tasks it takes unless the operator says otherwise;
 * with none the operator must. timeout: optional, "250ms", "5s", "10m", "1h30m". settings: the keys it knows,
 * for the tools. targets: optional, which of them say what a handler works on, so that two handlers in each other's way
 * are told: {"exclusive":["database","directory"],"clears":["directories"],"stores":["directory"]}. Two handlers that
 * agree in all of "exclusive" are on one target; "clears" are directories in which old files are deleted, whosever they
 * are; "stores" are directories in which the handler keeps what it makes.
 *
 * It becomes an ELF note: section .note.warren, owner "warren", type 1. The descriptor is the JSON and a NUL,
 * which readers drop. The linker keeps it in a PT_NOTE segment, with --gc-sections too. */
#define WARREN_MANIFEST(json)                                                                                 \
    static const struct {                                                                                     \
        uint32_t owner_size, desc_size, type;                                                                 \
        char owner[8];                                                                                        \
        char desc[(sizeof(json) + 3) / 4 * 4];                                                                \
    } warren_manifest_note __attribute__((section(".note.warren"), aligned(4), used)) = {                     \
        7, (uint32_t)sizeof(json), 1, "warren", json}

#ifdef __cplusplus
}
#endif

#endif
