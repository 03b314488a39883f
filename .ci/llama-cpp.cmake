# What of llama.cpp is compiled for bt_llm: its library alone. Included by CMake after llama.cpp's own project()
# call (see the Makefile), because llama-cpp-python forces the common library on in its cache, and only a plain
# variable set here hides that.
set(LLAMA_BUILD_COMMON OFF)
set(LLAMA_BUILD_TESTS OFF)
set(LLAMA_BUILD_TOOLS OFF)
set(LLAMA_BUILD_EXAMPLES OFF)
set(LLAMA_BUILD_SERVER OFF)
set(LLAMA_OPENSSL OFF)
