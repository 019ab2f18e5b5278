/* What the upstream answers: texts as OpenAI sends them. */
#ifndef ANSWERS_H
#define ANSWERS_H

#include "net.h"

#define HEAD_FORMAT                                                                                        \
    "HTTP/1.1 %s\r\nDate: Thu, 15 Jan 2026 12:00:00 GMT\r\nContent-Type: application/json\r\n"             \
    "Content-Length: %zu\r\nConnection: keep-alive\r\naccess-control-expose-headers: X-Request-ID\r\n"     \
    "openai-organization: benchmark\r\nopenai-processing-ms: 412\r\nopenai-version: 2020-10-01\r\n"        \
    "x-ratelimit-limit-requests: 10000\r\nx-ratelimit-limit-tokens: 2000000\r\n"                           \
    "x-ratelimit-remaining-requests: 9999\r\nx-ratelimit-remaining-tokens: 1999975\r\n"                    \
    "x-ratelimit-reset-requests: 6ms\r\nx-ratelimit-reset-tokens: 1ms\r\n"                                 \
    "x-request-id: req_%032lx\r\nstrict-transport-security: max-age=31536000\r\n"                          \
    "X-Content-Type-Options: nosniff\r\nServer: benchmark\r\n\r\n"

#define STREAM_HEAD                                                                                        \
    "HTTP/1.1 200 OK\r\nDate: Thu, 15 Jan 2026 12:00:00 GMT\r\n"                                           \
    "Content-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n"                     \
    "Connection: keep-alive\r\nx-ratelimit-limit-requests: 10000\r\nx-ratelimit-limit-tokens: 2000000\r\n" \
    "x-ratelimit-remaining-requests: 9999\r\nx-ratelimit-remaining-tokens: 1999975\r\n"                    \
    "x-request-id: req_5d0c6e1b7a8f4c2e9b3a1d6f8e7c4b2a\r\n\r\n"

#define CHUNK_FORMAT                                                                                       \
    "{\"id\":\"chatcmpl-B9Mwxvs6otXFpTVYMfHMI0YFHKhJx\",\"object\":\"chat.completion.chunk\","             \
    "\"created\":1768478400,\"model\":\"bench-2026-01-15\",\"system_fingerprint\":\"fp_06737a9306\","      \
    "\"choices\":[%s]%s}"
#define ROLE_CHOICE                                                                                        \
    "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},"                   \
    "\"logprobs\":null,\"finish_reason\":null}"
#define CONTENT_CHOICE                                                                                     \
    "{\"index\":0,\"delta\":{\"content\":\"t%012llu \"},\"logprobs\":null,\"finish_reason\":null}"
#define LAST_CHOICE "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}"
#define USAGE_FORMAT                                                                                       \
    ",\"usage\":{\"prompt_tokens\":24,\"completion_tokens\":%ld,\"total_tokens\":%ld,"                     \
    "\"prompt_tokens_details\":{\"cached_tokens\":0},"                                                     \
    "\"completion_tokens_details\":{\"reasoning_tokens\":0}}"

static const char completion[] =
    "{\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\"chat.completion\",\"created\":1768478400,"
    "\"model\":\"bench-2026-01-15\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
    "\"A short answer about the sea: it is wide, salty and blue, and it never quite keeps still.\","
    "\"refusal\":null,\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":"
    "{\"prompt_tokens\":24,\"completion_tokens\":21,\"total_tokens\":45,\"prompt_tokens_details\":"
    "{\"cached_tokens\":0,\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0,"
    "\"audio_tokens\":0,\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}},"
    "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_06737a9306\"}";
static const char models[] =
    "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\",\"created\":1768478400,"
    "\"owned_by\":\"benchmark\"}]}";

/* One vector of 1,536 numbers. */
static inline char *embedding_answer(void) {
    char *whole = grown(NULL, 64 << 10), *at = whole;
    at += sprintf(at, "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":[");
    for (int i = 0; i < 1536; i++)
        at += sprintf(at, "%s%.9f", i ? "," : "", ((i * 7919) % 2000 - 1000) / 20011.0);
    sprintf(at, "]}],\"model\":\"bench-2026-01-15\",\"usage\":{\"prompt_tokens\":8,\"total_tokens\":8}}");
    return whole;
}

#endif
