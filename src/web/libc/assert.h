/* assert of the wasm build. It tells file and line; the text of every expression, as the libc's has
 * it, would be sent to each visitor and tell them nothing. May be included again and again. */
#undef assert
#define assert(x) ((x) ? (void)0 : web_assert_failed(__FILE_NAME__, __LINE__))
#ifndef static_assert
#define static_assert _Static_assert
#endif
#ifndef WEB_ASSERT_FAILED
#define WEB_ASSERT_FAILED
_Noreturn void web_assert_failed(const char *file, int line); /* libc.c */
#endif
