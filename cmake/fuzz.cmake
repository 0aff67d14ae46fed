# tests/fuzz/fuzz_*.cpp: one libFuzzer program each, on what parses alone (src/io, src/text, src/formats, what the architectures say of
# configurations, and the hub's lists and names): the rest of the library need not be built with sanitizers to fuzz it.
file(GLOB_RECURSE PARSER_SOURCES src/io/*.cpp src/text/*.cpp src/formats/*.cpp src/models/architectures/*.cpp)
list(FILTER GENERATED_SOURCES INCLUDE REGEX "/architectures\\.cpp$")
add_library(supersonic_parsers STATIC EXCLUDE_FROM_ALL ${PARSER_SOURCES} ${GENERATED_SOURCES} src/core/shape.cpp src/core/interrupt.cpp
            src/core/nearest.cpp src/hub/listing.cpp src/hub/name.cpp src/hub/select.cpp src/hub/url.cpp)
target_include_directories(supersonic_parsers PUBLIC include src)
target_link_libraries(supersonic_parsers PUBLIC fmt::fmt Threads::Threads nlohmann_json::nlohmann_json PkgConfig::PCRE2 ${UTF8PROC} simdjson::simdjson)
file(GLOB FUZZ_SOURCES CONFIGURE_DEPENDS tests/fuzz/fuzz_*.cpp)
foreach(source ${FUZZ_SOURCES})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} EXCLUDE_FROM_ALL ${source})
  target_link_libraries(${name} PRIVATE supersonic_parsers)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
endforeach()
