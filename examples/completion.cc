/* completion from C++: handles in unique_ptr, the answer in a std::string.
 *
 *     c++ -std=c++17 completion.cc $(pkg-config --cflags --libs doppler) -o completion_cc
 *     ./completion_cc MODEL "Once upon a time" */
#include <doppler.h>

#include <iostream>
#include <memory>
#include <string>

template <auto release> struct with {
    template <class T> void operator()(T *handle) const {
        release(handle);
    }
};
using device_ptr = std::unique_ptr<dp_device, with<dp_device_close>>;
using model_ptr = std::unique_ptr<dp_model, with<dp_model_close>>;
using session_ptr = std::unique_ptr<dp_session, with<dp_session_free>>;

static bool append_text(void *user, const char *text, size_t size) {
    static_cast<std::string *>(user)->append(text, size);
    return true;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        std::cerr << "usage: completion_cc MODEL [PROMPT]\n";
        return 2;
    }
    const char *prompt = argc > 2 ? argv[2] : "Once upon a time";
    dp_error err{};
    std::string answer;
    dp_generate_options how{};
    how.max_tokens = 100;
    how.on_text = append_text;
    how.user = &answer;

    /* Declared in this order, so freed in the reverse: sessions, model, device. */
    device_ptr device(dp_device_open(nullptr, &err));
    model_ptr model(device ? dp_model_open(device.get(), argv[1], nullptr, &err) : nullptr);
    session_ptr session(model ? dp_session_new(model.get(), &err) : nullptr);
    if (!session || !dp_session_eval_text(session.get(), prompt, true, true, &err) ||
        !dp_generate(session.get(), &how, nullptr, &err)) {
        std::cerr << "completion_cc: " << err.message << "\n";
        return 1;
    }
    std::cout << answer << "\n";
}
